"""The laws that every method keeps, whoever wrote it, tried on tiny networks and random images (`sslbench check`)."""

from sslbench.conformance.check import check_matrix, check_method, check_methods, matrix
from sslbench.conformance.laws import LAWS, Law, Verdict

__all__ = ["LAWS", "Law", "Verdict", "check_matrix", "check_method", "check_methods", "matrix"]
