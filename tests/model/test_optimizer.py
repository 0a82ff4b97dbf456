from __future__ import annotations

import pytest
import timm
import torch
from omegaconf import OmegaConf
from torch import nn

from cnmc.config import CONFIG_DIR
from cnmc.config.groups import STAGES, ModelConfig
from cnmc.errors import CnmcError
from cnmc.model.optimizer import parameter_groups

RATES = {
    "stage1": 1e-6,
    "stage2": 1e-6,
    "stage3": 1e-4,
    "stage4": 1e-4,
    "stage5": 1e-4,
    "head": 1e-2,
}


def model_config(name: str) -> ModelConfig:
    node = OmegaConf.merge(
        OmegaConf.structured(ModelConfig), OmegaConf.load(CONFIG_DIR / "model" / f"{name}.yaml")
    )
    config = OmegaConf.to_object(node)
    assert isinstance(config, ModelConfig)
    return config


def network_of(config: ModelConfig) -> nn.Module:
    network: nn.Module = timm.create_model(config.name, num_classes=1)
    return network


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3), nn.Linear(3, 1))


@pytest.mark.parametrize("name", sorted(p.stem for p in (CONFIG_DIR / "model").glob("*.yaml")))
def test_configs_cover_every_parameter_once(name: str) -> None:
    config = model_config(name)
    network = network_of(config)
    groups = parameter_groups(network, config.stages, RATES)
    assert [group["name"] for group in groups] == list(STAGES)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in network.parameters()}
    head = next(group for group in groups if group["name"] == "head")
    assert sum(p.shape[0] for p in head["params"]) == 2  # one weight row and one bias


def test_the_papers_network_has_25_million_parameters_at_its_three_rates() -> None:
    config = model_config("seresnext50")
    groups = parameter_groups(network_of(config), config.stages, RATES)
    sizes = {group["name"]: sum(p.numel() for p in group["params"]) for group in groups}
    assert sum(sizes.values()) == 25_512_945
    assert sizes["head"] == 2049
    # The stem is one 7 x 7 convolution of 3 to 64 channels and its batch normalisation.
    assert sizes["stage1"] == 7 * 7 * 3 * 64 + 2 * 64
    assert {group["name"]: group["lr"] for group in groups} == RATES


@pytest.mark.parametrize(
    ("name", "last"),
    [("seresnext50", "bn3"), ("efficientnet_lite0", "bn3"), ("test_resnet", "bn2")],
)
def test_a_stage_is_one_resolution(name: str, last: str) -> None:
    """Footnote 2 of the paper: a stage is a stack of blocks at one spatial resolution."""
    config = model_config(name)
    network = network_of(config).eval()
    groups = parameter_groups(network, config.stages, RATES)
    stages = {id(p): group["name"] for group in groups for p in group["params"]}
    strides: dict[str, set[int]] = {}

    def hook(module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        stage = stages[id(next(module.parameters()))]
        strides.setdefault(stage, set()).add(160 // output.shape[-1])

    for path, module in network.named_modules():
        # The last batch normalization of each block has the block's output size.
        if path.endswith(last) and "." in path:
            module.register_forward_hook(hook)
    with torch.inference_mode():
        network(torch.zeros(1, 3, 160, 160))
    assert {stage: strides[stage] for stage in list(STAGES)[1:3]} == {"stage2": {4}, "stage3": {8}}
    assert 16 in strides["stage4"]
    assert strides["stage5"] == {32}


def test_first_match_wins() -> None:
    network = small()
    groups = parameter_groups(network, {"a": ["0.weight"], "b": ["0.*", "*"]}, {"a": 1.0, "b": 2.0})
    assert [id(p) for p in groups[0]["params"]] == [id(network[0].weight)]  # type: ignore[index]
    assert len(groups[1]["params"]) == 5


def test_stages_without_patterns_are_left_out() -> None:
    groups = parameter_groups(small(), {"a": [], "b": ["*"]}, {"b": 1.0})
    assert [group["name"] for group in groups] == ["b"]


@pytest.mark.parametrize(
    ("stages", "named"),
    [
        pytest.param({"a": ["*"], "b": ["layer9.*"]}, ["stages.b", "layer9.*"], id="no match"),
        pytest.param({"a": ["*"], "b": ["0.*"]}, ["stages.b", "0.*"], id="no effect"),
        pytest.param({"a": ["0.WEIGHT"], "b": ["*"]}, ["stages.a", "0.WEIGHT"], id="other case"),
        pytest.param({"a": ["0.*", "1.*"]}, ["2.weight", "2.bias"], id="parameter without stage"),
        pytest.param({"a": ["0.*"], "c": ["*"]}, ["optimizer.lr.c"], id="stage without rate"),
    ],
)
def test_faults_are_named(stages: dict[str, list[str]], named: list[str]) -> None:
    with pytest.raises(CnmcError) as caught:
        parameter_groups(small(), stages, {"a": 1.0, "b": 1.0})
    assert all(name in str(caught.value) for name in named)
