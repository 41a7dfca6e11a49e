"""The registered protocols: our own, and those that published tables were made with.

A paper's protocol follows the paper, or what its public code does where the paper is silent. What that code does by
mistake, or has no answer for, is put right under the plain name (`ga`) and kept under the one that says so
(`ga-released`, also written `ga[released]`), whose caption tells the slips.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sslbench.core.registry import register
from sslbench.metrics.protocol import EmptyPolicy, Protocol

_SURFACES = ("dsc", "jaccard", "asd", "hd95")


def _add(protocol: Protocol, *aliases: str) -> Protocol:
    register("protocol", protocol.name, aliases)(protocol)
    return protocol


def _add_released(protocol: Protocol, *slips: str, **changes: Any) -> Protocol:
    """The same protocol with its evaluator's slips."""
    description = f"As {protocol.name}, with the slips of the released evaluator: {'; '.join(slips)}."
    name = f"{protocol.name}-released"
    kept = replace(protocol, name=name, description=description, slips=slips, **changes)
    return _add(kept, f"{protocol.name}[released]")


NATIVE = _add(
    Protocol(
        name="native",
        version=1,
        description="sslbench's own: the scan's grid, in mm; a missed organ never improves a score.",
        grid="original",
        unit="mm",
        metrics=_SURFACES,
        policy=EmptyPolicy(),
        ddof=1,
    )
)

NATIVE_VOXEL = _add(
    replace(
        NATIVE,
        name="native-voxel",
        description="As native, with distances in pixels: for images whose files do not say how large one is.",
        unit="voxel",
    )
)

# ---------------------------------------------------------------------------------------------- Synapse and AMOS

_FAR = EmptyPolicy(absent_overlap=1.0, absent_distance=0.0, missed_distance=128.0, spurious_distance=128.0, capped=True)

_ZERO = EmptyPolicy(absent_overlap=0.0, absent_distance=0.0, missed_distance=0.0, spurious_distance=0.0)

GA = _add(
    Protocol(
        name="ga",
        version=2,
        description=(
            "GA (ECCV 2024) and SCDL: both label maps resized from 1.5×1.5×2 mm to 160×160×80, voxels of that grid; "
            "without the slips of the released script."
        ),
        grid="preprocessed",
        unit="voxel",
        metrics=("dsc", "asd"),
        policy=_FAR,
        ddof=0,
        spacing_mm=(1.5, 1.5, 2.0),
        resize_to=(160, 160, 80),
    )
)
GA_RELEASED = _add_released(
    GA,
    "a prediction that is all background has distance 0 everywhere",
    "an organ that is found farther than 128 voxels away costs more than one that is missed",
    policy=replace(_FAR, capped=False, blank=_ZERO),
)

DHC_2023 = _add(
    Protocol(
        name="dhc-2023",
        version=1,
        description=(
            "DHC (MICCAI 2023), GenericSSL and SKCDF, and DHC's code of 2024 on AMOS: scans stretched to 160×160×80, "
            "voxels of that grid; without the slips of the released script."
        ),
        grid="preprocessed",
        unit="voxel",
        metrics=("dsc", "asd"),
        policy=_FAR,
        ddof=0,
        resize_to=(160, 160, 80),
    ),
    "dhc",
    "genericssl",
    "skcdf",
)
_ONE_PERCENT = (
    "a class absent from both maps scores 1 on a scale of 100",
    "an organ that is found farther than 128 voxels away costs more than one that is missed",
)
DHC_2023_RELEASED = _add_released(DHC_2023, *_ONE_PERCENT, policy=replace(_FAR, absent_overlap=0.01, capped=False))

DHC_2024 = _add(
    replace(
        DHC_2023,
        name="dhc-2024",
        description=(
            "DHC's code of January 2024 on Synapse: all slices, each half as wide and high, voxels of that grid; "
            "without the slips of the released script. (On AMOS that code resizes labels to 144×144×72 and predictions "
            "to 160×160×80 and stops: there, dhc-2023.)"
        ),
        # A prediction that is doubled on its way back to the scan's grid and halved again is what it was.
        grid="original",
        resize_to=None,
        resize_by=(0.5, 0.5, 1.0),
    )
)
DHC_2024_RELEASED = _add_released(DHC_2024, *_ONE_PERCENT, policy=replace(_FAR, absent_overlap=0.01, capped=False))

MAGICNET = _add(
    Protocol(
        name="magicnet",
        version=1,
        description=(
            "MagicNet (CVPR 2023): the 1.5×1.5×2 mm grid that networks see, in its voxels; the tolerance of its NSD "
            "is not known here, 1 voxel is ours. That code scores 0 where a map is empty; here it is as in native."
        ),
        grid="preprocessed",
        unit="voxel",
        metrics=("dsc", "hd95", "nsd@1", "asd"),
        policy=EmptyPolicy(),
        ddof=0,
        spacing_mm=(1.5, 1.5, 2.0),
    )
)
MAGICNET_RELEASED = _add_released(
    MAGICNET, "a class scores 0 in everything, distances too, where either map is empty", policy=_ZERO
)

# ------------------------------------------------------------------------------------------------- ACDC and LA

SSL4MIS = _add(
    Protocol(
        name="ssl4mis",
        version=1,
        description=(
            "SSL4MIS's public ACDC test: the stored volume, a step between slices counting 1 like any other. That "
            "code stops at an empty mask; here it scores the image diagonal."
        ),
        grid="original",
        unit="voxel",
        metrics=_SURFACES,
        policy=EmptyPolicy(),
        ddof=0,
    )
)
# The scripts stop at a class that is only predicted; there the image diagonal stays.
_NOTHING_IS_NEAR = EmptyPolicy(absent_overlap=0.0, absent_distance=0.0, missed_distance=0.0)
SSL4MIS_RELEASED = _add_released(
    SSL4MIS,
    "a class that is predicted nowhere scores 0 in everything, distances too (BCP, SS-Net, ABD and β-FFT, and every "
    "validation)",
    policy=_NOTHING_IS_NEAR,
)

METASSL = _add(
    Protocol(
        name="metassl",
        version=1,
        description=(
            "MetaSSL (TMI 2025) on ACDC and LA: voxels, which its tables call mm; ± over cases. That code puts 50 for "
            "a distance to an empty mask; here it is the image diagonal."
        ),
        grid="original",
        unit="voxel",
        metrics=("dsc", "hd95"),
        policy=EmptyPolicy(),
        ddof=0,
        spread="cases",
    )
)
METASSL_RELEASED = _add_released(
    METASSL,
    "distances are 50 where either map is empty, or both, whose overlap is 1",
    policy=EmptyPolicy(absent_overlap=1.0, absent_distance=50.0, missed_distance=50.0, spurious_distance=50.0),
)

LA_UAMT = _add(
    Protocol(
        name="la-uamt",
        version=1,
        description=(
            "UA-MT's public LA test: distances in voxels (0.625 mm; MetaSSL calls such numbers mm), no largest "
            "component. That code scores an empty prediction 0 everywhere, distances too; here it scores the image "
            "diagonal."
        ),
        grid="original",
        unit="voxel",
        metrics=("dsc", "jaccard", "hd95", "asd"),
        policy=EmptyPolicy(),
        ddof=0,
    )
)
_EMPTY_LA = "an empty prediction scores 0 in everything, distances too"
LA_UAMT_RELEASED = _add_released(LA_UAMT, _EMPTY_LA, policy=_NOTHING_IS_NEAR)

LA_BCP = _add(
    replace(
        LA_UAMT,
        name="la-bcp",
        description=(
            "The LA test of BCP, SS-Net and DTC: as la-uamt, of the prediction's largest component. That code stops "
            "at an empty prediction."
        ),
        postprocess=("largest-component",),
    )
)
LA_BCP_RELEASED = _add_released(LA_BCP, _EMPTY_LA, policy=_NOTHING_IS_NEAR)

LA_COBIONET = _add(
    replace(
        LA_BCP,
        name="la-cobionet",
        description=(
            "Co-BioNet's LA test: as la-bcp, of the voxels on which its two networks agree; it needs the label maps of "
            "both."
        ),
        postprocess=("intersection", "largest-component"),
    )
)
LA_COBIONET_RELEASED = _add_released(LA_COBIONET, _EMPTY_LA, policy=_NOTHING_IS_NEAR)

# ----------------------------------------------------------------------------------------------------- DigestPath

DIGESTPATH = _add(
    Protocol(
        name="digestpath",
        version=1,
        description="DigestPath as MetaSSL reports it: the lesion in whole images, all of them; ± over images.",
        grid="original",
        unit="voxel",
        metrics=("dsc", "jaccard"),
        policy=EmptyPolicy(),
        ddof=0,
        spread="cases",
    )
)
DIGESTPATH_RELEASED = _add_released(
    DIGESTPATH,
    "the mean is over lesion and background",
    "overlaps are smoothed by 1e-5",
    "the first image of the list is left out",
    background=True,
    smooth=1e-5,
    skip_cases=1,
)
