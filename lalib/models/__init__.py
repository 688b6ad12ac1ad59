"""What is trained: autoencoders, contrastive encoders, classifiers, semi-supervised and adversarial ones; views.

References
----------
[Chen2020]    Chen et al., A simple framework for contrastive learning of visual representations, ICML 2020. SimCLR.
[DeVries2017] DeVries and Taylor, Improved regularization of convolutional neural networks with cutout, 2017.
[Gal2016]     Gal and Ghahramani, Dropout as a Bayesian approximation, ICML 2016.
[Godwin2022]  Godwin et al., Incorporating task-agnostic information in task-based active learning using a variational
              autoencoder, 2022.
[He2016]      He et al., Deep residual learning for image recognition, CVPR 2016.
[Ho2022]      Ho and Salimans, Classifier-free diffusion guidance, 2022. One network with the class and without it.
[Howard2018]  Howard and Ruder, Universal language model fine-tuning, 2018. Discriminative learning rates.
[Kim2021]     Kim, Park, Kim and Chun, Task-aware variational adversarial active learning, CVPR 2021. TA-VAAL.
[Kingma2014]  Kingma and Welling, Auto-encoding variational Bayes, 2014.
[Kingma2014b] Kingma, Rezende, Mohamed and Welling, Semi-supervised learning with deep generative models, NeurIPS 2014.
[Losalka]     Losalka, Singhanian and Sun, Active learning using deep generative models (slides). M2-VAAL.
[Maaten2008]  van der Maaten and Hinton, Visualizing data using t-SNE, JMLR 2008.
[Maaten2009]  van der Maaten, Learning a parametric embedding by preserving local structure, AISTATS 2009.
[Perez2018]   Perez et al., FiLM: visual reasoning with a general conditioning layer, AAAI 2018.
[Report]      Killeen, Progress update: query selection based on latent space sampling. Sec. 4: from it to a classifier.
[Simard2003]  Simard, Steinkraus and Platt, Best practices for convolutional neural networks applied to visual document
              analysis, 2003. Elastic distortions.
[Sinha2019]   Sinha, Ebrahimi and Darrell, Variational adversarial active learning, ICCV 2019. VAAL.
[Slides]      Killeen, Query selection based on latent space sampling (slides).
[Sohn2020]    Sohn et al., FixMatch: simplifying semi-supervised learning with consistency and confidence, NeurIPS 2020.
[Tomczak2018] Tomczak and Welling, VAE with a VampPrior, AISTATS 2018.
[Wu2018]      Wu and He, Group normalization, ECCV 2018.
[Yoo2019]     Yoo and Kweon, Learning loss for active learning, CVPR 2019.
"""

from lalib.models.adversarial import M2VAAL, TAVAAL, VAAL
from lalib.models.autoencoders import CAE, MODELS, TSNEAE, VAE, Autoencoder, ConditionalVAE, VariationalTSNEAE
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
from lalib.models.contrastive import ContrastiveEncoder
from lalib.models.pretrained import PretrainedEncoder
from lalib.models.semisupervised import M1M2, M2, ClassPriorVAE, FixMatch, partly_labelled
from lalib.models.views import CLOTHES, RandomViews

__all__ = ["CAE", "CLOTHES", "M1M2", "M2", "M2VAAL", "MODELS", "TAVAAL", "TSNEAE", "VAAL", "VAE", "Autoencoder"]
__all__ += ["CNNClassifier", "ClassPriorVAE", "Classifier", "ConditionalVAE", "ContrastiveEncoder", "EncoderClassifier"]
__all__ += ["FixMatch", "MLPClassifier", "PretrainedEncoder", "RandomViews", "ResNetClassifier", "VariationalTSNEAE"]
__all__ += ["accuracy", "mc_dropout_proba", "partly_labelled", "predict_proba"]
