"""Cross pseudo supervision: two networks, each learning from the other's hard labels."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, Field
from torch import Tensor

from sslbench.core.registry import register
from sslbench.core.step import Batch, Step
from sslbench.methods.shared.co_training import CoTraining, CoTrainingOptions


class CPSOptions(CoTrainingOptions):
    """Options of `cps`."""

    on: Literal["unlabeled", "all"] = Field(
        default="unlabeled", description="patches of the cross term: unlabelled (SSL4MIS), all (GA, DHC)"
    )


@register("method", "cps")
class CrossPseudoSupervision(CoTraining):
    """Σ_n supervised(n) + λ [CE(a, argmax b) + CE(b, argmax a)] (Chen et al., CVPR 2021).

    Both networks see the same patches; pseudo-labels come from the train-mode forward of the same step. Cost: two
    forward and backward passes over all patches.
    """

    title = "CPS"
    Options: ClassVar[type[BaseModel]] = CPSOptions
    term_kinds = ("label", "pseudo")
    options: CPSOptions

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        labels, L = batch.label["weak"], batch.num_labeled
        pair = a, b = self.pair(batch.image["weak"])
        self.observe(step, pair, labels)
        supervised = self.supervised(pair, labels, L).sum()
        first = L if self.options.on == "unlabeled" else 0
        cross = self.cross(a, b, first) + self.cross(b, a, first)
        return {"loss": supervised + step.consistency_weight * cross, "supervised": supervised, "cross": cross}


# Class imbalance: CPS whose networks weigh classes or voxels.
for _name, _title, _about in (
    ("adsh", "Adsh", "CPS under adaptive thresholds (Guo and Li, ICML 2022), as DHC's authors ported it."),
    ("cld", "CLD", "CPS under calibrated label distribution (Lin et al., MICCAI 2022)."),
    ("crest", "CReST", "CPS under the class weights of CReST (Wei et al., CVPR 2021), as DHC's authors ported it."),
    ("diffdw", "DiffDW", "DHC's difficulty-aware half in both networks (Wang and Li, MICCAI 2023)."),
    ("distdw", "DistDW", "DHC's distribution-aware half in both networks (Wang and Li, MICCAI 2023)."),
    ("simis", "SimiS", "CPS under the class weights of SimiS (Chen et al., arXiv 2022), as DHC's authors ported it."),
):
    register(
        "method",
        _name,
        preset_of="cps",
        set={"weighting": _name},
        title=_title,
        group="Imbalance",
        about=_about,
    )
register(
    "method",
    "dhc",
    preset_of="cps",
    set={"weighting.a": "diffdw", "weighting.b": "distdw"},
    title="DHC",
    group="Imbalance",
    about="Dual-debiased heterogeneous co-training: one network weighs classes by how hard they are, the other by how "
    "often they are predicted (Wang and Li, MICCAI 2023).",
)
