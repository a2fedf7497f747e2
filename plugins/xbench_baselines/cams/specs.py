"""The class activation maps: one record each, importable without torch."""

from __future__ import annotations

from xbench import ExplainerSpec

_GAP = "global average pooling and a linear head"
_MAPS = "feature maps near the output (a convolutional network)"

SPECS = (
    ExplainerSpec(
        "cam",
        "last feature maps weighted by the head",
        factory="xbench_baselines.cams.explainers:Cam",
        options="xbench_baselines.cams.options:CamOptions",
        model=_GAP,
        reference="Zhou et al. 2016; Huff et al. 3.2.3",
    ),
    ExplainerSpec(
        "gradcam",
        "feature maps weighted by their mean gradient",
        factory="xbench_baselines.cams.explainers:GradCam",
        options="xbench_baselines.cams.options:GradCamOptions",
        model=_MAPS,
        reference="Selvaraju et al. 2017",
    ),
    ExplainerSpec(
        "gradcam-plus-plus",
        "Grad-CAM with weights for several objects",
        factory="xbench_baselines.cams.explainers:GradCamPlusPlus",
        options="xbench_baselines.cams.options:LayerOptions",
        model=_MAPS,
        reference="Chattopadhay et al. 2018",
    ),
    ExplainerSpec(
        "guided-gradcam",
        "Grad-CAM times guided backpropagation",
        factory="xbench_baselines.cams.explainers:GuidedGradCam",
        options="xbench_baselines.cams.options:LayerOptions",
        model="ReLU activations, " + _MAPS,
        reference="Selvaraju et al. 2017",
    ),
    ExplainerSpec(
        "respond-cam",
        "Grad-CAM whose sum is the score",
        factory="xbench_baselines.cams.explainers:RespondCam",
        options="xbench_baselines.cams.options:LayerOptions",
        model=_MAPS,
        reference="Zhao et al. 2018; Huff et al. 3.2.3",
    ),
    ExplainerSpec(
        "layercam",
        "feature maps weighted by their positive gradient",
        factory="xbench_baselines.cams.explainers:LayerCam",
        options="xbench_baselines.cams.options:LayerOptions",
        model=_MAPS,
        reference="Jiang et al. 2021",
    ),
    ExplainerSpec(
        "visualbackprop",
        "mean activations of each stage, multiplied from the last to the first",
        factory="xbench_baselines.cams.visual_backprop:VisualBackProp",
        model=_MAPS,
        reference="Bojarski et al. 2018",
    ),
)
