"""The index of sslbench's own names: which module registers which, so that listing names imports nothing heavy."""

from __future__ import annotations

# Protocols that published tables were made with; each has a twin with the slips of the released evaluator.
PAPERS = (
    "ga", "dhc-2023", "dhc-2024", "magicnet", "ssl4mis", "metassl", "la-uamt", "la-bcp", "la-cobionet", "digestpath",
)  # fmt: skip

# kind -> module -> the names it registers (presets included). A test holds this index against the modules.
BUILTIN: dict[str, dict[str, tuple[str, ...]]] = {
    "dataset": {
        "sslbench.data.datasets.acdc": ("acdc",),
        "sslbench.data.datasets.amos": ("amos",),
        "sslbench.data.datasets.digestpath": ("digestpath",),
        "sslbench.data.datasets.la": ("la",),
        "sslbench.data.datasets.phantom": ("phantom",),
        "sslbench.data.datasets.synapse": ("synapse",),
    },
    "network": {
        "sslbench.networks.diffusion_vnet": ("diffusion_vnet",),
        "sslbench.networks.monai_nets": (
            "monai:AttentionUnet",
            "monai:BasicUNet",
            "monai:BasicUNetPlusPlus",
            "monai:DynUNet",
            "monai:MedNeXt",
            "monai:SegResNet",
            "monai:SwinUNETR",
            "monai:UNETR",
            "monai:UNet",
        ),
        "sslbench.networks.mutual": ("unet_mcnet",),
        "sslbench.networks.perturbation": ("unet_cct",),
        "sslbench.networks.pyramid": ("unet3d_urpc", "unet_urpc"),
        "sslbench.networks.residual": ("resunet", "resvnet"),
        "sslbench.networks.unet": ("unet",),
        "sslbench.networks.unet3d": ("unet3d",),
        "sslbench.networks.vnet": ("vnet",),
    },
    "method": {
        "sslbench.methods.beta_fft": ("beta_fft",),
        "sslbench.methods.basak": ("basak",),
        "sslbench.methods.bcp": ("bcp",),
        "sslbench.methods.abd": ("abd",),
        "sslbench.methods.cobionet": ("cobionet",),
        "sslbench.methods.ceud": ("ceud",),
        "sslbench.methods.ccvc": ("ccvc",),
        "sslbench.methods.cct": ("cct",),
        "sslbench.methods.cps": (
            "cps",
            "adsh",
            "cld",
            "crest",
            "dhc",
            "diffdw",
            "distdw",
            "simis",
        ),
        "sslbench.methods.dcnet": ("dcnet",),
        "sslbench.methods.depl": ("depl",),
        "sslbench.methods.desco": ("desco",),
        "sslbench.methods.dst": ("dst",),
        "sslbench.methods.fixmatch": ("fixmatch",),
        "sslbench.methods.genericssl": ("genericssl",),
        "sslbench.methods.magicnet": ("magicnet", "magicnet_released"),
        "sslbench.methods.mt": ("mt",),
        "sslbench.methods.uamt": ("uamt",),
        "sslbench.methods.mcnet": ("mcnet", "mcnet_plus"),
        "sslbench.methods.urpc": ("urpc",),
        "sslbench.methods.rdrop": ("rdrop",),
        "sslbench.methods.ssnet": ("ssnet",),
        "sslbench.methods.skcdf": ("skcdf",),
        "sslbench.methods.sdcl": ("sdcl",),
        "sslbench.methods.supervised": ("supervised",),
    },
    "loss": {
        "sslbench.losses.base": ("default",),
        "sslbench.losses.classic": (
            "focal",
            "topk_ce",
            "weighted_ce",
            "tversky",
            "focal_tversky",
            "generalized_dice",
        ),
        "sslbench.losses.gradient_aware": (
            "ga",
            "ga_labeled_only",
            "ga_unlabeled_only",
            "ga_gd",
            "ga_clse",
            "ga_dwe",
            "ga_gd_clse",
            "ga_gd_dwe",
            "ga_clse_dwe",
        ),
        "sslbench.losses.metassl": (
            "metassl",
            "metassl_lqh",
            "metassl_uqh",
            "metassl_conf_bh",
            "metassl_cons_bh",
            "metassl_released",
        ),
    },
    "weighting": {
        "sslbench.losses.weighting.difficulty": ("diffdw",),
        "sslbench.losses.weighting.distribution": ("crest", "distdw", "simis"),
        "sslbench.losses.weighting.sampling": ("cld",),
        "sslbench.losses.weighting.thresholds": ("adsh",),
    },
    "plugin": {"sslbench.plugins.scdl": ("scdl", "scdl_cdba_only")},
    "protocol": {
        "sslbench.metrics.published": (
            "native",
            "native-voxel",
            *(f"{name}{mode}" for name in PAPERS for mode in ("", "-released")),
        ),
    },
}

# kind -> name -> why nothing here answers to a name that tables print.
UNDESCRIBED: dict[str, dict[str, str]] = {
    "method": {
        "dca": "DCA (CVPR 2026): method not described in the source, whose supplement gives results alone",
    },
}
