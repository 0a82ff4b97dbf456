from __future__ import annotations

import importlib.util
import pickle
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cnmc.errors import CnmcError
from cnmc.model import backbone
from cnmc.model.backbone import build_network

PAPER = "legacy_seresnext50_32x4d"
LITE = "tf_efficientnet_lite0"
TINY = "test_resnet"


def build(name: str = TINY, **changes: Any) -> nn.Module:
    arguments = {"pretrained": False, "weights": None, "drop_rate": 0.0} | changes
    return build_network(name, **arguments)


def message(call: Callable[[], object]) -> str:
    """Return the text of the CnmcError that a call raises, which must be one line."""
    with pytest.raises(CnmcError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


def randomized(network: nn.Module, seed: int) -> nn.Module:
    """Make all tensors of a network different, including batch statistics."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 1.5, generator=generator)
            elif value.is_floating_point() and value.ndim == 1:
                value.add_(torch.randn(value.shape, generator=generator) * 0.1)
    return network.eval()


def original_network() -> nn.Module:
    """Build the network of the package `pretrainedmodels`, the lineage of the paper's weights."""
    package = importlib.util.find_spec("pretrainedmodels")
    if package is None or package.origin is None:
        pytest.skip("needs the package pretrainedmodels (a development dependency)")
    # By file: the package imports a dozen other networks, and six, which it does not declare.
    path = Path(package.origin).parent / "models" / "senet.py"
    spec = importlib.util.spec_from_file_location("original_senet", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network: nn.Module = module.se_resnext50_32x4d(num_classes=1000, pretrained=None)
    network.avg_pool = nn.AdaptiveAvgPool2d(1)  # its own is fixed to images of 224 x 224
    return network


def call(network: nn.Module, method: str, inputs: Tensor) -> Tensor:
    output = getattr(network, method)(inputs)
    assert isinstance(output, Tensor)
    return output


def images(size: int) -> Tensor:
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(size))


class TestBuild:
    def test_has_one_logit_and_no_dropout(self) -> None:
        network = build(PAPER)
        assert network(torch.rand(2, 3, 32, 32)).shape == (2, 1)
        assert network.drop_rate == 0.0  # timm's default for this network is 0.2

    def test_logits_are_in_32_bits_where_the_network_is_in_16(self) -> None:
        network = build().eval()
        given = images(32)
        expected = network(given)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = network(given)
        assert logits.dtype == torch.float32
        assert not torch.equal(logits, logits.bfloat16().float())
        torch.testing.assert_close(logits, expected, atol=0.05, rtol=0.05)

    def test_dropout_is_passed_on(self) -> None:
        assert build(PAPER, drop_rate=0.3).drop_rate == 0.3

    def test_unpretrained_start_is_random_and_seeded(self) -> None:
        torch.manual_seed(1)
        first = build().state_dict()["fc.weight"]
        torch.manual_seed(1)
        again = build().state_dict()["fc.weight"]
        other = build().state_dict()["fc.weight"]
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_unpretrained_ignores_the_file(self, tmp_path: Path) -> None:
        build(weights=tmp_path / "absent.pth")

    def test_unknown_name_has_close_matches(self) -> None:
        text = message(lambda: build("legacy_seresnext50_32x4"))
        assert "model.name=legacy_seresnext50_32x4" in text
        assert PAPER in text

    @pytest.mark.parametrize("pretrained", [False, True])
    def test_unknown_tag_is_named(self, pretrained: bool) -> None:
        assert "in99k" in message(lambda: build(f"{LITE}.in99k", pretrained=pretrained))


class TestOriginalNetwork:
    """The network is the one of the paper's lineage."""

    def test_same_keys_and_shapes(self) -> None:
        ours = timm.create_model(PAPER, num_classes=1000).state_dict()
        theirs = original_network().state_dict()
        assert [(k, v.shape) for k, v in ours.items()] == [(k, v.shape) for k, v in theirs.items()]

    @pytest.mark.parametrize("size", [96, pytest.param(300, marks=pytest.mark.slow)])
    def test_file_of_the_original_gives_its_features_and_logits(
        self, size: int, tmp_path: Path
    ) -> None:
        original = randomized(original_network(), seed=1)
        torch.save(original.state_dict(), tmp_path / "w.pth")
        ours = build(PAPER, pretrained=True, weights=tmp_path / "w.pth").eval()

        head = ours.get_submodule("last_linear").state_dict()
        assert head["weight"].shape == (1, 2048)
        theirs = original.state_dict() | {f"last_linear.{key}": head[key] for key in head}
        assert all(torch.equal(value, theirs[key]) for key, value in ours.state_dict().items())

        original.last_linear = nn.Linear(2048, 1)
        original.load_state_dict(theirs)
        with torch.inference_mode():
            features = call(original, "features", images(size))
            torch.testing.assert_close(
                call(ours, "forward_features", images(size)), features, rtol=1e-6, atol=1e-6
            )
            torch.testing.assert_close(
                ours(images(size)), original(images(size)), rtol=1e-6, atol=1e-6
            )
        assert features.abs().max() > 0.1

    def test_our_weights_give_the_same_logits_in_the_original(self) -> None:
        ours = randomized(timm.create_model(PAPER, num_classes=1000), seed=2)
        original = original_network().eval()
        original.load_state_dict(ours.state_dict())
        with torch.inference_mode():
            theirs = original(images(96))
            torch.testing.assert_close(ours(images(96)), theirs, rtol=1e-6, atol=1e-6)
        assert theirs.std() > 1e-3


class TestFiles:
    @pytest.fixture
    def state(self) -> dict[str, Tensor]:
        network = randomized(timm.create_model(TINY, num_classes=1000), seed=4)
        return dict(network.state_dict())

    @pytest.mark.parametrize("kind", ["bare", "wrapped", "prefixed", "safetensors"])
    def test_forms_of_a_state_dict(
        self, kind: str, state: dict[str, Tensor], tmp_path: Path
    ) -> None:
        path = tmp_path / "w.pth"
        if kind == "bare":
            torch.save(state, path)
        elif kind == "wrapped":
            torch.save({"state_dict": state, "epoch": 3}, path)
        elif kind == "prefixed":
            torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
        else:
            path = tmp_path / "w.safetensors"
            save_file({key: value.contiguous() for key, value in state.items()}, path)
        loaded = build(pretrained=True, weights=path).state_dict()
        assert all(torch.equal(loaded[k], state[k]) for k in state if not k.startswith("fc."))

    def test_a_head_of_the_same_size_is_kept(self, tmp_path: Path) -> None:
        state = randomized(build(), seed=5).state_dict()
        torch.save(state, tmp_path / "w.pth")
        loaded = build(pretrained=True, weights=tmp_path / "w.pth").state_dict()
        assert all(torch.equal(loaded[key], state[key]) for key in state)

    def test_files_from_before_batch_counters_load(
        self, state: dict[str, Tensor], tmp_path: Path
    ) -> None:
        old = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
        torch.save(old, tmp_path / "w.pth")
        build(pretrained=True, weights=tmp_path / "w.pth")

    def test_missing_unexpected_and_reshaped_keys_are_listed(
        self, state: dict[str, Tensor], tmp_path: Path
    ) -> None:
        del state["layer1.0.conv1.weight"]
        state["layer9.weight"] = torch.zeros(3)
        state["bn1.bias"] = torch.zeros(7)
        torch.save(state, tmp_path / "w.pth")
        text = message(lambda: build(pretrained=True, weights=tmp_path / "w.pth"))
        for key in ("layer1.0.conv1.weight", "layer9.weight", "bn1.bias"):
            assert key in text
        assert "fc." not in text

    def test_a_file_without_a_head_is_refused(
        self, state: dict[str, Tensor], tmp_path: Path
    ) -> None:
        torch.save({k: v for k, v in state.items() if k[:3] != "fc."}, tmp_path / "w.pth")
        text = message(lambda: build(pretrained=True, weights=tmp_path / "w.pth"))
        assert "fc.weight" in text

    def test_weights_of_another_network_are_refused_in_one_short_line(self, tmp_path: Path) -> None:
        torch.save(build(LITE).state_dict(), tmp_path / "w.pth")
        text = message(lambda: build(pretrained=True, weights=tmp_path / "w.pth"))
        assert "w.pth" in text
        assert len(text) < 2000

    def test_missing_file(self, tmp_path: Path) -> None:
        text = message(lambda: build(pretrained=True, weights=tmp_path / "absent.pth"))
        assert "absent.pth" in text
        assert "model.pretrained=false" in text

    def test_unknown_suffix(self, tmp_path: Path) -> None:
        (tmp_path / "w.h5").write_bytes(b"x")
        assert "w.h5" in message(lambda: build(pretrained=True, weights=tmp_path / "w.h5"))

    @pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
    @pytest.mark.parametrize("keep", [0, 20, 5000])
    def test_truncated_file(
        self, name: str, keep: int, state: dict[str, Tensor], tmp_path: Path
    ) -> None:
        path = tmp_path / name
        if path.suffix == ".pth":
            torch.save(state, path)
        else:
            save_file({key: value.contiguous() for key, value in state.items()}, path)
        path.write_bytes(path.read_bytes()[:keep])
        assert name in message(lambda: build(pretrained=True, weights=path))

    def test_no_code_in_a_file_is_run(self, tmp_path: Path) -> None:
        trace = tmp_path / "was_here"

        class Payload:
            def __reduce__(self) -> tuple[Any, ...]:
                return Path.touch, (trace,)

        torch.save({"state_dict": Payload()}, tmp_path / "w.pth")
        with (tmp_path / "plain.pth").open("wb") as file:
            pickle.dump(Payload(), file, protocol=2)
        for path in (tmp_path / "w.pth", tmp_path / "plain.pth"):
            text = message(partial(build, pretrained=True, weights=path))
            assert path.name in text
        assert not trace.exists()

    @pytest.mark.parametrize("kind", ["nan", "infinite", "complex", "sparse", "quantized", "meta"])
    def test_a_tensor_that_is_not_dense_real_and_finite_is_named(
        self, kind: str, state: dict[str, Tensor], tmp_path: Path
    ) -> None:
        key = "layer1.0.conv1.weight"
        value = state[key]
        forms: dict[str, Callable[[], Tensor]] = {
            "nan": lambda: value.where(value > 0, torch.nan),
            "infinite": lambda: value.double() * 1e300,
            "complex": lambda: value.to(torch.complex64),
            "sparse": value.to_sparse,
            "quantized": lambda: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8),
            "meta": lambda: value.to("meta"),
        }
        state[key] = forms[kind]()
        torch.save(state, tmp_path / "w.pth")
        text = message(lambda: build(pretrained=True, weights=tmp_path / "w.pth"))
        assert "w.pth" in text
        assert key in text

    def test_no_state_dict(self, tmp_path: Path) -> None:
        torch.save({"epoch": 3}, tmp_path / "w.pth")
        text = message(lambda: build(pretrained=True, weights=tmp_path / "w.pth"))
        assert "w.pth" in text

    @pytest.mark.real
    def test_real_weights_load_except_for_the_head(self, real_weights: Path) -> None:
        network = build(LITE, pretrained=True, weights=real_weights).state_dict()
        stored = load_file(real_weights)
        different = {key for key in network if not torch.equal(network[key], stored[key])}
        assert different == {"classifier.weight", "classifier.bias"}


class TestHub:
    @pytest.fixture(autouse=True)
    def empty_caches(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        for name in ("no_proxy", "NO_PROXY", "https_proxy"):
            monkeypatch.delenv(name, raising=False)
        # Every connection ends at a port where nobody listens.
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")

    @pytest.mark.parametrize("name", [PAPER, LITE])
    def test_an_unreachable_hub_names_both_alternatives(self, name: str) -> None:
        text = message(lambda: build(name, pretrained=True))
        assert name in text
        assert "model.weights=<file>" in text
        assert "model.pretrained=false" in text

    def test_a_hub_that_does_not_answer_times_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{silent.getsockname()[1]}")
            monkeypatch.setattr(backbone, "HUB_TIMEOUT", 0.5)
            text = message(lambda: build(LITE, pretrained=True))
        assert LITE in text

    def test_a_network_without_weights(self) -> None:
        bare = next(n for n in timm.list_models() if not timm.models.is_model_pretrained(n))
        assert bare in message(lambda: build(bare, pretrained=True))

    def test_an_earlier_download_serves_offline(self, tmp_path: Path) -> None:
        state = randomized(timm.create_model(TINY, num_classes=1000), seed=6).state_dict()
        repository = tmp_path / "hf" / "models--timm--test_resnet.r160_in1k"
        snapshot = repository / "snapshots" / "0123abcd"
        snapshot.mkdir(parents=True)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("0123abcd")
        save_file({k: v.contiguous() for k, v in state.items()}, snapshot / "model.safetensors")
        loaded = build(pretrained=True).state_dict()
        assert all(torch.equal(loaded[k], state[k]) for k in state if not k.startswith("fc."))

    def test_a_damaged_download_is_one_line(self, tmp_path: Path) -> None:
        folder = tmp_path / "torch" / "hub" / "checkpoints"
        folder.mkdir(parents=True)
        (folder / "legacy_se_resnext50_32x4d-f3651bad.pth").write_bytes(b"half a file")
        text = message(lambda: build(PAPER, pretrained=True))
        assert "f3651bad.pth" in text
        assert "model.weights=<file>" in text
