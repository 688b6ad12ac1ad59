"""What is trained: autoencoders, contrastive encoders, classifiers, semi-supervised and adversarial ones; views."""

from lalib.models.adversarial import M2VAAL, TAVAAL, VAAL
from lalib.models.autoencoders import CAE, MODELS, TSNEAE, VAE, Autoencoder, VariationalTSNEAE
from lalib.models.classifiers import (
    Classifier,
    CNNClassifier,
    EncoderClassifier,
    MLPClassifier,
    ResNetClassifier,
    accuracy,
    mc_dropout_proba,
    predict_proba,
)
from lalib.models.conditional import ConditionalVAE
from lalib.models.contrastive import ContrastiveEncoder
from lalib.models.semisupervised import M1M2, M2, ClassPriorVAE, FixMatch, partly_labelled
from lalib.models.views import CLOTHES, RandomViews

__all__ = ["CAE", "CLOTHES", "M1M2", "M2", "M2VAAL", "MODELS", "TAVAAL", "TSNEAE", "VAAL", "VAE", "Autoencoder"]
__all__ += ["CNNClassifier", "ClassPriorVAE", "Classifier", "ConditionalVAE", "ContrastiveEncoder", "EncoderClassifier"]
__all__ += ["FixMatch", "MLPClassifier", "RandomViews", "ResNetClassifier", "VariationalTSNEAE", "accuracy"]
__all__ += ["mc_dropout_proba", "partly_labelled", "predict_proba"]
