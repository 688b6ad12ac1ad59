"""Numbers that say how good codes are and how difficult images are.

[Venna2001]  Venna and Kaski, Neighborhood preservation in nonlinear projection methods, 2001. Trustworthiness.
[Paul2021]   Paul et al., Deep learning on a data diet, 2021. EL2N.
[Toneva2019] Toneva et al., An empirical study of example forgetting, 2019.
[Swayamdipta2020] Swayamdipta et al., Dataset cartography, 2020.
"""

import numpy as np
import torch
from torch import Tensor

from lalib.codes.neighbours import knn
from lalib.data.checks import LalibError, check_int
from lalib.data.door import as_tensor, check_codes, check_labels
from lalib.data.imageset import ImageSet
from lalib.data.seeds import child_seed
from lalib.models.classifiers import CNNClassifier, predict_proba
from lalib.training.fitting import fit


def one_nn_error(
    codes: Tensor, labels: Tensor, test_codes: Tensor | None = None, test_labels: Tensor | None = None
) -> float:
    """Share of points whose nearest neighbour among `codes` (N, L) with labels (N,) has another label, in [0, 1].

    The points are test_codes (M, L) with test_labels (M,) if given, else each code among the others (N >= 2).
    """
    codes = check_codes(codes)
    labels = wanted = check_labels(labels, n := len(codes)).cpu()
    if test_codes is not None:
        test_codes = check_codes(test_codes, "test_codes")
        wanted = check_labels(test_labels, len(test_codes), name="test_labels").cpu()
    elif test_labels is not None or n < 2:
        raise ValueError(f"test_codes must be given beside test_labels or for a single code, got None, N = {n}")
    index = knn(codes, 1, test_codes)[1][:, 0].cpu()
    return float((labels[index] != wanted).float().mean())


def trustworthiness(images: ImageSet | Tensor, codes: Tensor, k: int = 12) -> float:
    """T(k) in [0, 1]: how far the k neighbours among the codes are neighbours among the pixels, too [Venna2001].

    images: an ImageSet or an array (N, ...); k < N / 2. Memory grows with N^2: give a few thousand images.
    """
    from sklearn.manifold import trustworthiness as sklearn_trustworthiness

    x, points = images.images if isinstance(images, ImageSet) else as_tensor(images, "images"), check_codes(codes)
    if x.ndim == 0 or len(x) != len(points):
        raise ValueError(f"codes must be as many as the {len(x) if x.ndim else 1} images, got {len(points)}")
    k, x = check_int("k", k, low=1, high=(len(x) - 1) // 2), check_codes(x.reshape(len(x), -1), "images")
    return float(sklearn_trustworthiness(x.float().cpu().numpy(), points.cpu().numpy(), n_neighbors=k))


def class_balance(labels: Tensor, n_classes: int) -> float:
    """Normalised entropy of the class counts of labels (n,): 1 if all classes are equally frequent, 0 for one class."""
    n_classes = check_int("n_classes", n_classes, low=2)
    labels = check_labels(labels, n_classes=n_classes)
    share = torch.bincount(labels, minlength=n_classes).double() / len(labels)
    return float(torch.xlogy(share, share).sum().abs() / np.log(n_classes))  # abs: not -0


def difficulty(
    images: ImageSet,
    *,
    epochs: int = 10,
    early: int = 3,
    networks: int = 10,
    seed: int = 0,
    device: str = "auto",
    progress: bool = True,
):
    """How hard each image is to learn, from small CNNs trained on all: a DataFrame with N rows.

    el2n: |p - onehot(y)|_2 after `early` epochs, the mean over so many `networks` of other initial weights and batches,
    as the paper's over 10 [Paul2021]. The others come from the first network: forgetting: times an image went from
    right to wrong between epochs [Toneva2019] (Differs: counted per epoch, not per batch; `epochs` for an image never
    learnt); confidence, variability: mean and standard deviation over epochs of p(y) [Swayamdipta2020]. Needs labels.
    """
    import pandas as pd

    if images.labels is None:
        raise LalibError("difficulty needs labels: the image set has none")
    early = check_int("early", early, low=1, high=check_int("epochs", epochs, low=1))
    others = [child_seed(seed, "network", k) for k in range(1, check_int("networks", networks, low=1))]
    settings = {"batch_size": 128, "device": device, "progress": progress}

    def train(seed, epochs):
        classifier, probs_T_N_C = CNNClassifier(images.image_shape, images.n_classes, seed=seed), []
        keep = {"on_epoch": lambda _, model: probs_T_N_C.append(predict_proba(model, images))}
        fit(classifier, images, epochs=epochs, seed=seed, **keep, **settings)
        return torch.stack(probs_T_N_C)

    first, *rest = train(seed, epochs), *(train(other, early)[-1] for other in others)
    return pd.DataFrame(_difficulty(first, images.labels, early, rest))


def _difficulty(probs_T_N_C: Tensor, labels: Tensor, early: int, others=()) -> dict[str, np.ndarray]:
    """others: what further networks say after `early` epochs, each (N, C)."""
    onehot = torch.nn.functional.one_hot(labels, probs_T_N_C.shape[2])
    p_true = (probs_T_N_C * onehot).sum(2)
    right = probs_T_N_C.argmax(2) == labels
    forgotten = (right[:-1] & ~right[1:]).sum(0)
    return {
        "el2n": (torch.stack([probs_T_N_C[early - 1], *others]) - onehot).norm(dim=2).mean(dim=0).numpy(),
        "forgetting": torch.where(right.any(0), forgotten, len(right)).numpy(),
        "confidence": p_true.mean(0).numpy(),
        "variability": p_true.std(0, correction=0).numpy(),
    }
