from __future__ import annotations

from dataclasses import asdict

import pytest
import timm
import torch
from omegaconf import OmegaConf
from torch import nn

from cnmc.config import CONFIG_DIR, STAGES, ModelConfig
from cnmc.errors import CnmcError
from cnmc.model.param_groups import parameter_groups, stage_of

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
    groups = parameter_groups(network, asdict(config.stages), RATES)
    assert [group["name"] for group in groups] == list(STAGES)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in network.parameters()}
    head = next(group for group in groups if group["name"] == "head")
    assert sum(p.shape[0] for p in head["params"]) == 2  # one weight row and one bias


def test_the_papers_network_has_25_million_parameters_at_its_three_rates() -> None:
    config = model_config("seresnext50")
    groups = parameter_groups(network_of(config), asdict(config.stages), RATES)
    sizes = {group["name"]: sum(p.numel() for p in group["params"]) for group in groups}
    assert sum(sizes.values()) == 25_512_945
    assert sizes["head"] == 2049
    # The stem is one 7 x 7 convolution of 3 to 64 channels and its batch normalisation.
    assert sizes["stage1"] == 7 * 7 * 3 * 64 + 2 * 64
    assert {group["name"]: group["lr"] for group in groups} == RATES


@pytest.mark.parametrize("name", ["seresnext50", "efficientnet_lite0", "test_resnet"])
def test_a_stage_is_one_resolution(name: str) -> None:
    """Footnote 2 of the paper: a stage is a stack of blocks at one spatial resolution."""
    config = model_config(name)
    stages = asdict(config.stages)
    network = network_of(config).eval()
    strides: dict[str, set[int]] = {}

    def record(stage: str) -> object:
        def hook(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
            # 1 x 1 maps are the gates of squeeze-and-excitation.
            if output.ndim == 4 and output.shape[-1] > 1:
                strides.setdefault(stage, set()).add(160 // output.shape[-1])

        return hook

    last = {"seresnext50": "bn3", "efficientnet_lite0": "bn", "test_resnet": "bn2"}[name]
    for path, module in network.named_modules():
        # The last batch normalisation of each block: the first may still have the input's size.
        own = [f"{path}.{p}" for p, _ in module.named_parameters(recurse=False)]
        if own and last in path.rsplit(".", 1)[-1]:
            module.register_forward_hook(record(stage_of(own[0], stages)))
    with torch.inference_mode():
        network(torch.zeros(1, 3, 160, 160))
    expected = {"stage2": 4, "stage3": 8, "stage4": 16, "stage5": 32}
    for stage, stride in expected.items():
        assert stride in strides[stage]
        if name != "efficientnet_lite0":  # there each block's first expansion precedes its stride
            assert strides[stage] == {stride}


def test_first_match_wins() -> None:
    network = small()
    groups = parameter_groups(network, {"a": ["0.weight"], "b": ["0.*", "*"]}, {"a": 1.0, "b": 2.0})
    assert [id(p) for p in groups[0]["params"]] == [id(network[0].weight)]  # type: ignore[index]
    assert len(groups[1]["params"]) == 5
    assert stage_of("0.weight", {"a": ["0.weight"], "b": ["*"]}) == "a"
    assert stage_of("0.weight", {"b": ["*"], "a": ["0.weight"]}) == "b"


def test_rates_reach_the_optimiser() -> None:
    stages = {"a": ["0.*", "1.*"], "b": ["2.*"]}
    optimiser = torch.optim.Adam(parameter_groups(small(), stages, {"a": 1e-6, "b": 1e-2}))
    assert [(g["name"], g["lr"]) for g in optimiser.param_groups] == [("a", 1e-6), ("b", 1e-2)]


def test_stages_without_patterns_are_left_out() -> None:
    groups = parameter_groups(small(), {"a": [], "b": ["*"]}, {"b": 1.0})
    assert [group["name"] for group in groups] == ["b"]


def test_names_match_case() -> None:
    with pytest.raises(CnmcError, match=r'model\.stages\.a: the pattern "FC\.\*"'):
        parameter_groups(nn.ModuleDict({"fc": nn.Linear(1, 1)}), {"a": ["FC.*"]}, {"a": 1.0})


def test_a_pattern_that_matches_nothing_is_named() -> None:
    with pytest.raises(CnmcError, match=r'model\.stages\.b: the pattern "layer9\.\*" matches no'):
        parameter_groups(small(), {"a": ["*"], "b": ["layer9.*"]}, {"a": 1.0, "b": 1.0})


def test_a_pattern_without_effect_is_named() -> None:
    with pytest.raises(CnmcError, match=r'model\.stages\.b: the pattern "0\.\*" has no effect'):
        parameter_groups(small(), {"a": ["*"], "b": ["0.*"]}, {"a": 1.0, "b": 1.0})


def test_a_parameter_without_a_stage_is_named() -> None:
    with pytest.raises(CnmcError, match=r"no pattern matches 2\.weight, 2\.bias"):
        parameter_groups(small(), {"a": ["0.*", "1.*"]}, {"a": 1.0})
    with pytest.raises(CnmcError, match=r"2\.weight"):
        stage_of("2.weight", {"a": ["0.*", "1.*"]})


def test_a_stage_without_a_rate_is_named() -> None:
    with pytest.raises(CnmcError, match=r"optimizer\.lr\.b: missing"):
        parameter_groups(small(), {"a": ["0.*"], "b": ["*"]}, {"a": 1.0})
