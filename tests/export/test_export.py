from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from fastamr.cli import main
from fastamr.export import OnnxModel, export_onnx, export_program
from fastamr.export import onnx_file as onnx_module
from fastamr.export.graph import (
    ClassifierGraph,
    EncoderGraph,
    PlainPatchEmbed,
    example_inputs,
    model_outputs,
    trace,
)
from fastamr.models import ActionClassifier, build_model
from fastamr.nn import MaskedPatchEmbed
from fastamr.skeleton import SkeletonLayout

LAYOUT = SkeletonLayout("chain3", ("root", "neck", "head"), (-1, 0, 1), ())
MODELS = {
    "amr": {"target_patches": 1},
    "gfp": {"levels": (1, 2)},
    "asma": {"hidden": 4, "projector": 8},
    "asma transformer": {"backbone": "transformer", "projector": 8},
    "slim": {"patch_frames": 4, "prototypes": 16, "head_hidden": 8, "bottleneck": 8},
}
STEPS = ({"name": "center", "joint": "root", "frame": "first", "per": "body"},)


def encoder(kind: str = "amr"):
    name = kind.split()[0]
    small = {"frames": 8, "width": 8, "heads": 2, "depth": 2}
    if name != "asma":
        small |= {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}
    model = build_model(name, layout=LAYOUT, **small, **MODELS[kind])
    with torch.no_grad():
        for parameter in model.parameters():
            # Alignments that start as the identity, biases and norms too.
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def trained(kind: str = "amr", **options) -> ActionClassifier:
    classifier = ActionClassifier(
        encoder(kind), 3, class_names=("a", "b", "c"), steps=STEPS, **options
    ).train()
    for _ in range(3):
        classifier(torch.randn(8, 8, 3, 3) + 0.5)
    return classifier.eval()


def needs_onnx() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)


class TestGraph:
    @pytest.mark.parametrize("flat", [False, True])
    def test_plain_embedding_is_the_library_one(self, flat) -> None:
        layer = MaskedPatchEmbed(12, 5, 6, patch_frames=3, flat_embedding=flat)
        clips = torch.randn(2, 12, 5, 3)
        clips[1, ..., 2] = 0
        torch.testing.assert_close(PlainPatchEmbed(layer)(clips), layer(clips))

    @pytest.mark.parametrize("kind", list(MODELS))
    def test_computes_what_the_model_does(self, kind) -> None:
        classifier = trained(kind, hidden=8)
        inputs = example_inputs(classifier, 3, 2)
        with torch.no_grad():
            found = ClassifierGraph(classifier)(*inputs)
        torch.testing.assert_close(found, model_outputs(classifier, inputs)[0])
        model = encoder(kind).eval()
        inputs = example_inputs(model, 4, 1)
        with torch.no_grad():
            found = EncoderGraph(model)(*inputs)
        for one, wanted in zip(found, model_outputs(model, inputs), strict=True):
            torch.testing.assert_close(one, wanted)

    def test_what_is_absent_does_not_matter(self) -> None:
        graph = ClassifierGraph(trained(pooling="mean"))
        clips, present, valid = example_inputs(trained(), 2, 3)
        present = torch.tensor([[True, False, True], [False, True, False]])
        with torch.no_grad():
            before = graph(clips, present, valid)
            spoiled = torch.where(present[:, :, None, None, None], clips, float("nan"))
            spoiled = torch.where(valid[..., None] | ~present[:, :, None, None, None], spoiled, float("inf"))
            assert torch.equal(graph(spoiled, present, valid), before)
            nobody = graph(clips, torch.zeros_like(present), valid)
        assert bool(torch.isfinite(nobody).all())

    def test_leaves_the_model_as_it_is(self) -> None:
        classifier = trained().train()
        before = {name: value.clone() for name, value in classifier.state_dict().items()}
        trace(classifier)
        assert classifier.training
        assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())
        assert any(isinstance(module, MaskedPatchEmbed) for module in classifier.modules())

    def test_own_operations_are_refused(self) -> None:
        class Gathers(nn.Module):
            def __init__(self, embed: MaskedPatchEmbed) -> None:
                super().__init__()
                self.inner = [embed]  # hidden from modules()

            def forward(self, clips, keep=None):
                return self.inner[0](clips, keep)

        model = encoder().requires_grad_(False)
        model.encoder.embed = Gathers(model.encoder.embed)
        with pytest.raises(
            ValueError, match=r"calls fastamr.masked_patch_gather.*other runtimes do not have"
        ):
            trace(model)

    def test_what_cannot_be_exported(self) -> None:
        with pytest.raises(TypeError, match="cannot export a Linear"):
            trace(nn.Linear(2, 2))  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"weights of torch.bfloat16: call model.float"):
            trace(trained().bfloat16())


def agrees(path, classifier: ActionClassifier) -> None:
    session = OnnxModel(path)
    for batch, bodies in ((1, 1), (7, 1), (7, 2), (2, 3)):
        inputs = example_inputs(classifier, batch, bodies)
        named = {
            name: value.numpy() for name, value in zip(("clips", "present", "valid"), inputs, strict=True)
        }
        found = session(**named)["logits"]
        expected = model_outputs(classifier, inputs)[0].numpy()
        assert found.shape == (batch, 3)
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


class TestOnnx:
    def test_agrees_with_the_model_at_any_batch(self, classifier, onnx_file) -> None:
        agrees(onnx_file, classifier)

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", list(MODELS))
    def test_every_model_with_the_public_head(self, kind, tmp_path) -> None:
        needs_onnx()
        classifier = trained(kind)
        assert export_onnx(classifier, tmp_path / "m.onnx") < 1e-5
        agrees(tmp_path / "m.onnx", classifier)

    def test_the_encoder_alone(self, tmp_path) -> None:
        needs_onnx()
        model = encoder()
        export_onnx(model, tmp_path / "e.onnx", steps=["center", "resample:fps=20"])
        session = OnnxModel(tmp_path / "e.onnx")
        for batch in (1, 7):
            clips, valid = example_inputs(model, batch, 1)
            found = session(clips=clips.numpy(), valid=valid.numpy())
            features, tokens = model_outputs(model, (clips, valid))
            np.testing.assert_allclose(found["features"], features.numpy(), atol=1e-5, rtol=0)
            np.testing.assert_allclose(found["tokens"], tokens.numpy(), atol=1e-5, rtol=0)
        description = session.description
        assert (description["kind"], description["classes"]) == ("encoder", 0)
        assert [step["name"] for step in description["steps"]] == ["center", "resample"]

    def test_the_metadata_says_what_the_graph_expects(self, onnx_file, classifier) -> None:
        description = OnnxModel(onnx_file).description
        assert description["kind"] == "classifier"
        assert description["class_names"] == ["still", "wave", "reach"]
        assert (description["frames"], description["channels"], description["crop"]) == (16, 3, 0.95)
        assert SkeletonLayout.from_dict(description["layout"]) == classifier.encoder.layout
        assert description["steps"] == list(classifier.steps)
        assert set(description["inputs"]) == {"clips", "present", "valid"}

    def test_standard_operators_and_no_paths_of_this_machine(self, onnx_file) -> None:
        import onnx

        model = onnx.load(str(onnx_file))
        onnx.checker.check_model(model)
        assert {node.domain for node in model.graph.node} == {""}
        assert b"/fastamr/" not in onnx_file.read_bytes()
        dims = [
            [d.dim_param or d.dim_value for d in one.type.tensor_type.shape.dim] for one in model.graph.input
        ]
        assert dims == [["batch", "bodies", 16, 4, 3], ["batch", "bodies"], ["batch", "bodies", 16, 4]]

    def test_a_wrong_graph_is_not_written(self, classifier, onnx_file, tmp_path, monkeypatch) -> None:
        path = tmp_path / "m.onnx"
        path.write_bytes(b"before")
        graph = SimpleNamespace(all_nodes=list)
        program = SimpleNamespace(
            model=SimpleNamespace(graph=graph, metadata_props={}),
            save=lambda name, external_data: Path(name).write_bytes(onnx_file.read_bytes()),
        )
        monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: program)
        assert export_onnx(classifier, tmp_path / "right.onnx") < 1e-5
        right = onnx_module.model_outputs
        monkeypatch.setattr(
            onnx_module, "model_outputs", lambda *given: tuple(x * 1.01 for x in right(*given))
        )
        with pytest.raises(ValueError, match=r"differs from the model by 0.0.*nothing was written"):
            export_onnx(classifier, path)
        assert path.read_bytes() == b"before"
        assert sorted(file.name for file in tmp_path.iterdir()) == ["m.onnx", "right.onnx"]

    def test_foreign_files(self, tmp_path, onnx_file) -> None:
        import onnx

        with pytest.raises(FileNotFoundError, match=r"no ONNX file .*none.onnx"):
            OnnxModel(tmp_path / "none.onnx")
        (tmp_path / "text.onnx").write_text("hello")
        with pytest.raises(ValueError, match=r"text.onnx is not an ONNX file"):
            OnnxModel(tmp_path / "text.onnx")
        (tmp_path / "half.onnx").write_bytes(onnx_file.read_bytes()[:2000])
        with pytest.raises(ValueError, match=r"half.onnx is not an ONNX file"):
            OnnxModel(tmp_path / "half.onnx")
        model = onnx.load(str(onnx_file))
        for text, message in (
            ("{}", "damaged description"),
            ("[", "damaged description"),
            (None, "no description"),
        ):
            del model.metadata_props[:]
            if text is not None:
                entry = model.metadata_props.add()
                entry.key, entry.value = "fastamr", text
            onnx.save(model, str(tmp_path / "other.onnx"))
            with pytest.raises(ValueError, match=message):
                OnnxModel(tmp_path / "other.onnx")

    def test_missing_packages_are_named(self, tmp_path, monkeypatch) -> None:
        import importlib.util

        find = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: None if name.startswith("onnx") else find(name)
        )
        with pytest.raises(
            ImportError, match=r"onnx and onnxscript and onnxruntime: pip install 'fastamr\[export\]'"
        ):
            export_onnx(trained(), tmp_path / "m.onnx")

    def test_no_folder(self, tmp_path) -> None:
        needs_onnx()
        with pytest.raises(FileNotFoundError, match="does not exist; create it first"):
            export_onnx(trained(), tmp_path / "none" / "m.onnx")

    def test_wrong_names_and_opsets(self, tmp_path, monkeypatch) -> None:
        needs_onnx()
        with pytest.raises(ValueError, match=r"m.bin ends in '.bin', expected .onnx"):
            export_onnx(trained(), tmp_path / "m.bin")
        for opset in (3, 17, 1000):
            with pytest.raises(
                ValueError, match=rf"opset={opset} cannot be written: choose one from 18 to \d+"
            ):
                export_onnx(trained(), tmp_path / "m.onnx", opset=opset)
        program = SimpleNamespace(model=SimpleNamespace(opset_imports={"": 18}))
        monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: program)
        with pytest.raises(ValueError, match=r"opset=19 was asked for, PyTorch wrote 18"):
            export_onnx(trained(), tmp_path / "m.onnx", opset=19)
        assert not list(tmp_path.iterdir())

    def test_the_opset_that_is_asked_for(self, tmp_path) -> None:
        needs_onnx()
        import onnx

        export_onnx(encoder(), tmp_path / "m.onnx", opset=18)
        assert [entry.version for entry in onnx.load(str(tmp_path / "m.onnx")).opset_import] == [18]


class TestProgram:
    def test_runs_where_this_library_is_not(self, tmp_path) -> None:
        classifier = trained()
        export_program(classifier, tmp_path / "m.pt2")
        cases = [example_inputs(classifier, *sizes) for sizes in ((1, 1), (7, 1), (2, 2), (2, 3))]
        expected = [model_outputs(classifier, inputs)[0] for inputs in cases]
        torch.save(list(zip(cases, expected, strict=True)), tmp_path / "case.pt")
        code = (
            "import json, sys, torch\n"
            "sys.modules['fastamr'] = None\n"
            "extra = {'fastamr.json': ''}\n"
            "program = torch.export.load('m.pt2', extra_files=extra)\n"
            "run = program.module()\n"
            "for inputs, expected in torch.load('case.pt', weights_only=True):\n"
            "    torch.testing.assert_close(run(*inputs), expected)\n"
            "print(json.loads(extra['fastamr.json'])['class_names'])\n"
        )
        run = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.stdout.strip() == "['a', 'b', 'c']", run.stderr

    def test_holds_no_decoder(self) -> None:
        classifier = trained("gfp")
        names = trace(classifier).program.state_dict
        assert len(names) == len(classifier.inference_state())

    def test_wrong_names(self, tmp_path) -> None:
        with pytest.raises(ValueError, match=r"ends in '.pt', expected .pt2"):
            export_program(trained(), tmp_path / "m.pt")
        with pytest.raises(FileNotFoundError, match="create it first"):
            export_program(trained(), tmp_path / "none" / "m.pt2")


class TestCommand:
    def test_an_encoder_of_a_run_or_of_a_classifier(self, folder, tmp_path) -> None:
        encoder().save_pretrained(tmp_path / "run")
        (tmp_path / "run" / "config.yaml").write_text("steps: ['center:frame=every']\n")
        cases = (
            ([str(tmp_path / "run")], "encoder", "every"),
            ([str(folder), "--encoder"], "encoder", "first"),
            ([str(folder)], "classifier", "first"),
        )
        for arguments, kind, frame in cases:
            path = tmp_path / "new" / "er" / "e.pt2"  # the folders are made
            assert main(["export", *arguments, "--torch-export", str(path)]) == 0
            extra = {"fastamr.json": ""}
            torch.export.load(path, extra_files=extra)
            description = json.loads(extra["fastamr.json"])
            assert (description["kind"], description["steps"][0]["frame"]) == (kind, frame)

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            ([], 2, "nothing to write: give --onnx FILE"),
            (["--torch-export", "x.bin"], 1, "expected .pt2"),
            (["--onnx", "x.bin"], 1, "expected .onnx"),
            (["--onnx", "x.onnx", "--torch-export", "x.bin"], 1, "expected .pt2"),
            (["--onnx", "x.onnx", "--opset", "3"], 1, "opset=3 cannot be written"),
        ],
    )
    def test_errors(self, folder, arguments, code, message, capsys, tmp_path, monkeypatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert main(["export", str(folder), *arguments]) == code
        assert message in capsys.readouterr().err
        assert not list(tmp_path.iterdir())

    def test_no_model(self, tmp_path, capsys) -> None:
        assert main(["export", str(tmp_path), "--onnx", "x.onnx"]) == 1
        assert "holds no config.json" in capsys.readouterr().err
