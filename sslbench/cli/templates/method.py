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

    term_kinds, unobserved = ("label", "consistency"), {"teacher": "outputs are mixed as the patches are"}

    def average(self):
        return EMA("teacher", "student", decay=0.99)

    def training_step(self, batch, step):
        image, labels, L = batch.image["weak"], batch.label["weak"], batch.num_labeled
        logits = self.student(torch.cat([image[:L], image[L:].lerp(image[L:].flip(0), self.options.mix)]))
        known, taught = self.teacher_logits(image, logits, labels, L, step)
        mixed, soft = logits[L:], torch.lerp(p := taught.float().softmax(1), p.flip(0), self.options.mix)
        plain = self.loss.supervised(logits[:L], labels[:L], key="student", reference=self.reference("teacher", known))
        own, teacher = lambda: mse_consistency(mixed, soft), ("teacher", soft)
        drawn = self.loss.consistency(mixed, own, key="student", reference=teacher)
        return {"loss": plain + step.consistency_weight * drawn, "supervised": plain, "consistency": drawn}
