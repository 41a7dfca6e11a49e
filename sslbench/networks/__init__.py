"""Networks: `encode → decode → head`, built apart so that methods can compose them."""

from sslbench.networks.base import Features, Network, build_decoder, build_network

__all__ = ["Features", "Network", "build_decoder", "build_network"]
