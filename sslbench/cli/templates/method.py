"""A method: interpolation consistency training (Verma et al., IJCAI 2019)."""

import torch

import sslbench
from sslbench.losses.consistency import mse_consistency
from sslbench.methods.base import EMA
from sslbench.methods.shared.teacher_student import TeacherStudent


class ICT(TeacherStudent):
    """Draws the student's output for a mix of two unlabelled patches to the mix of its teacher's outputs."""

    class Options(sslbench.Options):
        mix: float = 0.3  # share of the second patch

    term_kinds = ("label", "consistency")

    def average(self):
        return EMA("teacher", "student", decay=0.99)

    def training_step(self, batch, step):
        image, labels, L = batch.image["weak"], batch.label["weak"], batch.num_labeled
        logits = self.student(torch.cat([image[:L], image[L:].lerp(image[L:].flip(0), self.options.mix)]))
        taught = self.teacher_logits(image, logits, labels, L, step)[1].float().softmax(1)
        target = taught.lerp(taught.flip(0), self.options.mix)
        supervised = self.loss.supervised(logits[:L], labels[:L], key="student")
        own, reference = lambda: mse_consistency(logits[L:], target), ("teacher", target)
        drawn = self.loss.consistency(logits[L:], own, key="student", reference=reference)
        return {"loss": supervised + step.consistency_weight * drawn, "supervised": supervised, "consistency": drawn}
