"""Explanations that are learned, by the classifier itself or by a model of normal images. Hook implementations only."""

from __future__ import annotations

from collections.abc import Iterable

from xbench import ExplainerSpec, ModelSpec, hookimpl

_JETLEY = "Jetley et al., Learn to pay attention, ICLR 2018, section 3"


@hookimpl
def xbench_models() -> Iterable[ModelSpec]:
    """Yield the classifier with attention."""
    yield ModelSpec(
        "attention",
        "a small VGG-like network that classifies from what its attention lets through at its last three stages",
        factory="xbench_learned.attention:AttentionModel",
        options="xbench_learned.options:AttentionModelOptions",
        reference=_JETLEY,
    )


@hookimpl
def xbench_explainers() -> Iterable[ExplainerSpec]:
    """Yield the attention of such a classifier, and the explainers with auto-encoders of normal images."""
    yield ExplainerSpec(
        "attention",
        "where a classifier with trained attention looks; the same for every class",
        factory="xbench_learned.attention:Attention",
        options="xbench_learned.options:AttentionOptions",
        reference=_JETLEY,
        model="the model `attention`",
    )
    yield ExplainerSpec(
        "autoencoder",
        "what an auto-encoder of normal images can't reproduce; knows nothing of the model",
        factory="xbench_learned.autoencoder:Autoencoder",
        options="xbench_learned.options:AutoencoderOptions",
        reference="Baur et al., Autoencoders for unsupervised anomaly segmentation in brain MR images: a comparative "
        "study, Medical Image Analysis 2021",
    )
    yield ExplainerSpec(
        "vae",
        "what a variational auto-encoder of normal images can't reproduce; knows nothing of the model",
        factory="xbench_learned.autoencoder:VariationalAutoencoder",
        options="xbench_learned.options:VariationalOptions",
        reference="Kingma & Welling, Auto-encoding variational Bayes, ICLR 2014, equation 10, appendix B; the map as "
        "in Baur et al., Medical Image Analysis 2021",
    )
    yield ExplainerSpec(
        "vae-perturbation",
        "drop of the class score when a window is replaced by its normal-looking reconstruction",
        factory="xbench_learned.autoencoder:VaePerturbation",
        options="xbench_learned.options:PerturbationOptions",
        reference="Uzunova et al., Interpretable explanations of black box classifiers applied on medical images by "
        "meaningful perturbations using variational autoencoders, SPIE Medical Imaging 2019; by windows as in "
        "Zeiler & Fergus 2014, section 4.2",
    )
