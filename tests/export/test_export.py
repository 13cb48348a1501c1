"""From training runs to a package: the graph computes what the network computes, tiles, and nothing broken gets out."""

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from PIL import Image

from assetgen import golden, policy
from assetgen.errors import ConfigInvalid, OutputUnwritable, ParityFailed
from assetgen.kinds import texture
from assetgen.manifest import LayoutSpec
from assetgen.models import layers
from assetgen.package import verify_package
from assetgen.runtime import open_session
from export import assemble, cli, package_from_runs, parity
from export.graph import OUTPUTS, MaterialGraph, parts_of_layers
from export.networks import graph_from_runs, read_runs
from export.onnx_from_module import OPSET, onnx_from_module
from export.sliders import Effort, Slider, Sliders
from export.variations import Variation, Variations, VariationSettings
from tests.helpers.tiny_runs import TEXTURE

NO_SLIDERS = Effort(samples=0)
LICENSE = Path(cli.LICENSES["Apache-2.0"])


@pytest.fixture(scope="module")
def graph(runs):
    return graph_from_runs(read_runs(*runs))


@pytest.fixture(scope="module")
def session(exported):
    session = open_session(verify_package(exported), "cpu", 1)
    yield session
    session.close()


@pytest.fixture(scope="module")
def run_named(graph, exported, session):
    """Runs the exported graph on the inputs of ``graph`` in order; sliders that were found stay at 0."""
    found = [spec.name for spec in verify_package(exported).manifest.inputs if spec.role == "slider"]

    def run(inputs):
        sliders = {name: np.zeros((len(inputs[0]), 1), np.float32) for name in found}
        return session.run(dict(zip(input_names(graph), inputs, strict=True)) | sliders)

    return run


def network(graph):
    """A runner for parity checks out of a network itself."""

    def run(inputs):
        with torch.no_grad():
            return [output.numpy() for output in graph(*map(torch.from_numpy, inputs))]

    return run


def package(runs, output, **changes):
    texture, detail = runs
    options = {"id": "tiny-real", "version": "1.0.0", "display_name": "Tiny", "license": "Apache-2.0"}
    options |= {"effort": NO_SLIDERS}
    return package_from_runs.package_from_runs(texture, detail, output, license_file=LICENSE, **options | changes)


def copy_of(run, folder, **changes):
    """A run folder with another recipe or other facts in its checkpoint."""
    shutil.copytree(run, folder)
    path = folder / "checkpoint" / "state.json"
    state = json.loads(path.read_text())
    for name, values in changes.items():
        state[name] |= values
    path.write_text(json.dumps(state))
    return folder


def test_the_package_is_complete(exported):
    verified = verify_package(exported)
    names = {entry.path for entry in verified.manifest.files}
    assert names == {"generator.fp32.onnx", "LICENSE", "MODEL_CARD.md", "golden.json", "preview.png"}
    assert verified.manifest.id == "tiny-real"
    assert [known.name for known in verified.manifest.classes] == ["brick", "metal"]
    assert [known.metal for known in verified.manifest.classes] == [False, True]
    assert (exported / "LICENSE").read_bytes() == LICENSE.read_bytes()
    assert [path.name for path in exported.parent.iterdir()] == ["tiny-real"], "no partial folder is left"


def test_the_graph_obeys_the_policy(exported):
    verified = verify_package(exported)
    data = verified.read(verified.manifest.graph)
    assert policy.broken_rule(data, verified.manifest) == ""
    # the check really looks at this graph
    latent, *others = verified.manifest.inputs
    inputs = (replace(latent, shape=("n", 15)), *others)
    assert policy.broken_rule(data, replace(verified.manifest, latent_dimension=15, inputs=inputs))


def test_the_graph_is_self_contained_and_plain(exported):
    model = onnx.load(exported / "generator.fp32.onnx", load_external_data=False)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [OPSET]
    operators = {node.op_type for node in model.graph.node}
    assert not {name for name in operators if "Random" in name}
    assert not {node.domain for node in model.graph.node} - {""}
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in model.graph.initializer)


def test_parity_was_measured_and_written_down(exported):
    provenance = verify_package(exported).manifest.provenance
    assert 0 < provenance["parity"]["graph_against_network"] <= parity.PARITY_LIMIT
    assert provenance["parity"]["roll_network"] <= parity.ROLL_LIMIT
    assert provenance["parity"]["roll_graph"] <= parity.ROLL_LIMIT


def test_the_licences_of_the_data_are_kept_to_the_end(exported):
    provenance = verify_package(exported).manifest.provenance
    for what in ("texture", "detail"):
        assert set(provenance[what]["data"]["licenses"]) == {"CC0-1.0"}
        assert len(provenance[what]["data"]["data_sha256"]) == 64
        assert provenance[what]["recipe"]["seed"] == 1
    card = (exported / "MODEL_CARD.md").read_text()
    assert "It was trained for two steps and makes coloured noise." in card
    assert "CC0-1.0" in card
    assert provenance["texture"]["data"]["data_sha256"] in card


def test_provenance_says_where_a_run_began(runs, exported, tmp_path):
    assert "transferred_from" not in verify_package(exported).manifest.provenance["texture"]
    began = {"kimg": 87.5, "data_sha256": "ab" * 32}
    texture = copy_of(runs[0], tmp_path / "texture", facts={"transferred_from": began})
    detail = copy_of(runs[1], tmp_path / "detail", facts={"drawn_by": began})
    package((texture, detail), tmp_path / "tiny-real")
    provenance = verify_package(tmp_path / "tiny-real").manifest.provenance
    assert provenance["detail"]["drawn_by"] == began
    assert provenance["texture"]["transferred_from"] == began
    assert "transferred_from" not in provenance["detail"]


def test_classes_keep_the_layouts_they_were_trained_with(exported):
    brick, metal = verify_package(exported).manifest.classes
    assert brick.layout == TEXTURE.layouts["brick"]
    assert metal.layout == LayoutSpec()


def test_other_layouts_may_be_served_than_were_trained_on(runs, tmp_path):
    served = tmp_path / "served.toml"
    served.write_text("[layouts]\nmetal = { pitch = [4, 8] }\n")
    output = tmp_path / "tiny-real"
    arguments = [str(runs[0]), "--detail", str(runs[1]), "-o", str(output), "--layouts", str(served)]
    arguments += ["--slider-samples", "0"]
    assert cli.main(arguments) == 0
    brick, metal = verify_package(output).manifest.classes
    assert brick.layout == TEXTURE.layouts["brick"]
    assert metal.layout == LayoutSpec(pitch=(4.0, 8.0))
    served.write_text("[layouts]\nlava = { pitch = [4, 8] }\n")
    with pytest.raises(ConfigInvalid, match="layouts for 'lava', which is no class"):
        cli.main(arguments)


def test_relief_keeps_within_what_can_be_believed(exported):
    """Two steps of training give any relief; joints are never as flat as glaze."""
    assert package_from_runs._relief_px(0.1, jointed=False) == 0.5
    assert package_from_runs._relief_px(0.1, jointed=True) == 3.0
    assert package_from_runs._relief_px(5.5, jointed=True) == 5.5
    assert package_from_runs._relief_px(77.0, jointed=False) == 10.0
    brick, metal = verify_package(exported).manifest.classes
    assert 3.0 <= brick.relief_px <= 10.0
    assert 0.5 <= metal.relief_px <= 10.0


def test_golden_requests_replay_clean(exported, session):
    verified = verify_package(exported)
    results = golden.replay(session, verified.manifest, golden.load(verified))
    assert {(result.request.width_px, result.request.height_px) for result in results} == {
        (256, 256),
        (320, 192),
        (512, 512),
    }
    assert all(result.bytes_compared and not result.failed for result in results)


def test_the_preview_shows_every_class(exported):
    with Image.open(exported / "preview.png") as preview:
        assert preview.size == (256, 64)
        left, right, rest = (np.asarray(preview.crop((x, 0, x + 64, 64))).astype(int) for x in (0, 64, 128))
    assert np.abs(left - right).mean() > 0.5
    assert rest.max() == 0


def input_names(graph):
    return [spec.name for spec in graph.inputs]


@pytest.mark.parametrize("size", [(1, 64, 64), (2, 80, 112), (1, 256, 64), (5, 64, 96)])
def test_the_graph_computes_what_the_network_computes(graph, run_named, size):
    inputs = [tensor.numpy() for tensor in graph.example(*size, seed=9)]
    outputs = run_named(inputs)
    for name, expected in zip(OUTPUTS, network(graph)(inputs), strict=True):
        assert outputs[name].shape == expected.shape == (size[0], 3 if name == "base_color" else 1, *size[1:])
        assert np.abs(outputs[name] - expected).max() <= parity.PARITY_LIMIT
        assert outputs[name].min() >= 0
        assert outputs[name].max() <= 1


@pytest.mark.parametrize("zeros", [("z",), ("z_2",), ("z", "z_2")])
def test_latents_of_zeros_make_the_picture_that_the_network_makes(graph, run_named, zeros):
    """Serving never feeds them; whoever runs the graph by other means may."""
    inputs = [
        np.zeros_like(value.numpy()) if name in zeros else value.numpy()
        for name, value in zip(input_names(graph), graph.example(1, 64, 64, seed=2), strict=True)
    ]
    outputs = run_named(inputs)
    for name, expected in zip(OUTPUTS, network(graph)(inputs), strict=True):
        assert np.abs(outputs[name] - expected).max() <= parity.PARITY_LIMIT


def test_every_input_matters_to_the_graph(graph, run_named):
    """None was folded away by the exporter."""
    first, other = ([tensor.numpy() for tensor in graph.example(2, 64, 64, seed=seed)] for seed in (1, 2))
    other[1] = first[1][:, ::-1].copy()
    other[2] = first[2] / 2
    names = input_names(graph)
    before = run_named(first)["base_color"]
    for i, name in enumerate(names):
        changed = run_named([*first[:i], other[i], *first[i + 1 :]])
        assert np.abs(changed["base_color"] - before).max() > 0, name


@pytest.fixture(scope="module")
def look_graph(graph):
    """The network with two sliders that nobody has looked for."""
    directions = torch.randn(2, 2, 16, generator=torch.Generator().manual_seed(5)) * 0.3
    return MaterialGraph(graph.texture, graph.detail, ["warmth", "contrast"], directions)


@pytest.fixture(scope="module")
def look_run(look_graph, tmp_path_factory):
    """Runs the exported graph on a mapping of changes to its example inputs; returns base colour."""
    path = tmp_path_factory.mktemp("look") / "generator.onnx"
    onnx_from_module(look_graph, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = input_names(look_graph)
    inputs = dict(zip(names, [tensor.numpy() for tensor in look_graph.example(2, 64, 64, seed=4)], strict=True))
    neutral = {name: np.zeros_like(inputs[name]) for name in ("mix", "warmth", "contrast")}

    def run(**changes):
        return session.run(["base_color"], inputs | neutral | changes)[0]

    run.inputs = inputs
    return run


def test_a_graph_with_sliders_computes_what_its_network_computes(look_graph, look_run):
    inputs = [tensor.numpy() for tensor in look_graph.example(2, 64, 64, seed=4)]
    changes = dict(zip(input_names(look_graph), inputs, strict=True))
    assert np.abs(look_run(**changes) - network(look_graph)(inputs)[0]).max() <= parity.PARITY_LIMIT
    report = parity.check_parity(look_graph, network(look_graph))
    assert max(report.roll_network.values()) <= parity.ROLL_LIMIT


def test_mixing_nothing_and_sliders_at_zero_change_nothing(graph, look_run):
    """What the texture network paints from z alone, to the last bit before the exporter."""
    z, weights, truncation = (torch.from_numpy(look_run.inputs[name]) for name in ("z", "class_weights", "truncation"))
    ws = graph.styles(z, weights, truncation, torch.randn(2, 16), torch.zeros(2, 2), [])
    alone = graph.texture.mapping.truncated(z, weights, truncation)
    assert all(torch.equal(ws[:, i], alone) for i in range(ws.shape[1]))
    before = look_run()
    assert np.array_equal(before, look_run(z_2=look_run.inputs["z_2"] + 1))
    assert np.array_equal(before, look_run(z_2=look_run.inputs["z"], mix=np.float32([[1, 1], [0.3, 0.7]])))


def test_mixing_all_the_way_gives_the_other_style(look_run):
    whole = look_run(mix=np.ones((2, 2), np.float32))
    assert np.abs(whole - look_run(z=look_run.inputs["z_2"])).max() <= 1e-5
    coarse, fine = (look_run(mix=np.float32([part, part])) for part in ([1, 0], [0, 1]))
    for part in (coarse, fine):
        assert np.abs(part - whole).max() > 1e-4
        assert np.abs(part - look_run()).max() > 1e-4


def test_directions_are_those_of_the_class(look_graph):
    """And of a blend what its classes have, in proportion."""
    z, one = torch.zeros(3, 16), torch.ones(3, 1)
    weights = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.25, 0.75]])
    sliders = [torch.tensor([[0.5], [0.5], [0.5]]), torch.tensor([[-1.0], [0.0], [0.0]])]
    moved, still = (
        look_graph.styles(z, weights, one, z, torch.zeros(3, 2), values)[:, 0]
        for values in (sliders, [torch.zeros(3, 1)] * 2)
    )
    warmth, contrast = look_graph.directions
    expected = torch.stack(
        [0.5 * warmth[0] - contrast[0], 0.5 * warmth[1], 0.5 * (0.25 * warmth[0] + 0.75 * warmth[1])]
    )
    assert torch.allclose(moved - still, expected, atol=1e-5)


def test_coarse_are_the_layers_at_the_resolution_of_the_grid(graph):
    """Enter, two layers and their colour; then twice two layers and a colour."""
    assert parts_of_layers(graph.texture) == [0] * 4 + [1] * 6
    assert len(graph.texture.layers) == 10


def test_a_package_offers_mixing_and_the_sliders_that_were_found(runs, tmp_path, monkeypatch):
    found = Sliders(
        (Slider("warmth", 0.5, 1.0, 0.9, 0.9, 7.0), Slider("tint", 0.5, 0.5, 0.9, 0.9, 7.0)), torch.ones(2, 2, 16)
    )
    variations = Variations(
        (
            Variation("variation_1", "sefa", 1.0, 1.0, 0.5, "tint", 0.5),
            Variation("variation_2", "sefa", 5.0, 1.0, 0.5, "contrast", 0.5),
        ),
        torch.tensor([2.0, 3.0])[:, None, None].expand(2, 2, 16),
    )
    given = []
    monkeypatch.setattr(package_from_runs, "find_sliders", lambda *_: found)
    monkeypatch.setattr(package_from_runs, "find_variations", lambda *asked: given.extend(asked[3:]) or variations)
    asked = VariationSettings(2, "sefa")
    package(runs, tmp_path / "tiny-real", effort=Effort(samples=32), variations=asked)
    assert [slider.name for slider in given[0].sliders] == ["warmth"]
    assert given[1] == asked
    manifest = verify_package(tmp_path / "tiny-real").manifest
    texture.check(verify_package(tmp_path / "tiny-real"))
    assert [spec.name for spec in manifest.inputs[-4:]] == ["z_2", "mix", "warmth", "variation_2"]
    assert {"mix_seed", "mix", "mix_part", "warmth"} <= {spec.name for spec in manifest.parameters}
    assert manifest.parameters[-1].description.endswith("changes mostly contrast.")
    assert "tint" not in {spec.name for spec in manifest.parameters}
    offered = {entry["name"]: entry["offered"] for entry in manifest.provenance["sliders"]}
    assert offered == {"warmth": True, "tint": False}
    assert manifest.provenance["sliders"][0]["effect"] == 7.0
    assert [entry["offered"] for entry in manifest.provenance["variations"]] == [False, True]
    requests = [entry["request"] for entry in golden.load(verify_package(tmp_path / "tiny-real"))["requests"]]
    assert [{"warmth", "variation_2"} & set(request["parameters"]) for request in requests[3:]] == [
        {"warmth"},
        {"variation_2"},
    ]
    assert "| `variation_2` | sefa |" in (tmp_path / "tiny-real" / "MODEL_CARD.md").read_text()


def test_who_looks_for_no_sliders_gets_no_variations(exported):
    manifest = verify_package(exported).manifest
    assert not [spec for spec in manifest.inputs if spec.role == "slider"]
    assert manifest.provenance["variations"] == []


def test_wrong_variations_are_refused(runs, tmp_path):
    arguments = [str(runs[0]), "--detail", str(runs[1]), "-o", str(tmp_path / "p")]
    for option in (["--variations", "-1"], ["--variation-method", "pca"]):
        with pytest.raises(ConfigInvalid, match=option[1]):
            cli.main([*arguments, *option])


def test_too_few_samples_for_sliders_are_refused(runs, tmp_path):
    arguments = [str(runs[0]), "--detail", str(runs[1]), "-o", str(tmp_path / "p")]
    for option in (["--slider-samples", "8"], ["--slider-steps", "-1"]):
        with pytest.raises(ConfigInvalid, match=f"{option[0]} {option[1]}: use"):
            cli.main([*arguments, *option])


def test_nothing_is_seen_beyond_the_halo(graph):
    """A change in one grid cell and its noise stays within halo_px, on which windows rely."""
    cells = 2 * graph.halo_px // graph.stride + 3
    edge = cells * graph.stride
    inputs = [tensor.clone() for tensor in graph.example(1, edge, edge, seed=3)]
    for name, parameter in graph.named_parameters():
        if "noise_strength" in name:
            assert parameter.shape[-1] == 8  # by class in the detail network
    before = network(graph)([tensor.numpy() for tensor in inputs])
    middle = cells // 2
    for array, spec in zip(inputs, graph.inputs, strict=True):
        if spec.stride_px:
            factor = graph.stride // spec.stride_px
            area = slice(middle * factor, (middle + 1) * factor)
            array[:, :, area, area] += 5
    after = network(graph)([tensor.numpy() for tensor in inputs])
    low, high = middle * graph.stride - graph.halo_px, (middle + 1) * graph.stride + graph.halo_px
    for a, b in zip(before, after, strict=True):
        changed = np.abs(a - b).max(axis=(0, 1)) > 1e-6
        assert changed.any()
        rows, columns = np.nonzero(changed)
        assert min(rows.min(), columns.min()) >= low
        assert max(rows.max(), columns.max()) < high


def test_a_network_that_does_not_tile_is_found(graph, monkeypatch):
    monkeypatch.setattr(layers, "_wrapped", lambda x, margin: torch.nn.functional.pad(x, [margin] * 4))
    with pytest.raises(ParityFailed, match=r"network does not tile: .* allowed is 1e-05"):
        parity.check_parity(graph, network(graph))


def test_a_graph_that_does_not_tile_is_found(graph):
    """It agrees with the network to within the limit of parity, but one pixel has a fixed place."""

    def run(inputs):
        outputs = network(graph)(inputs)
        outputs[1][:, :, 0, 0] += 5e-5
        return outputs

    with pytest.raises(ParityFailed, match="graph does not tile: height"):
        parity.check_parity(graph, run)


@pytest.mark.parametrize("output", range(4))
@pytest.mark.parametrize("error", [2e-4, float("nan")])
def test_a_graph_that_differs_is_found(graph, output, error):
    def run(inputs):
        outputs = network(graph)(inputs)
        outputs[output] = outputs[output] + np.float32(error)
        return outputs

    with pytest.raises(ParityFailed, match=f"graph differs from the network: {OUTPUTS[output]}"):
        parity.check_parity(graph, run)


def altered_graph(exported, scale):
    """Stands in for the exporter: the right graph with the weights of one convolution scaled."""

    def write(graph, path):
        model = onnx.load(exported / "generator.fp32.onnx")
        weights = next(tensor for tensor in model.graph.initializer if list(tensor.dims[-2:]) == [3, 3])
        weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * np.float32(scale), weights.name))
        onnx.save(model, path)

    return write


def test_altered_weights_never_become_a_package(runs, exported, tmp_path, monkeypatch):
    monkeypatch.setattr(package_from_runs, "onnx_from_module", altered_graph(exported, 1.1))
    with pytest.raises(ParityFailed, match="graph differs from the network"):
        package(runs, tmp_path / "p")
    assert list(tmp_path.iterdir()) == []


def test_a_former_package_is_replaced_on_success_only(runs, exported, tmp_path, monkeypatch):
    output = tmp_path / "tiny-real"
    shutil.copytree(exported, output)
    former = verify_package(output).digest
    monkeypatch.setattr(package_from_runs, "onnx_from_module", altered_graph(exported, 1.1))
    with pytest.raises(ParityFailed):
        package(runs, output)
    assert verify_package(output, digest=former)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(package_from_runs, "onnx_from_module", full)
    with pytest.raises(OutputUnwritable, match="No space left on device"):
        package(runs, output)
    assert verify_package(output, digest=former)

    monkeypatch.setattr(package_from_runs, "onnx_from_module", altered_graph(exported, 1.0))
    digest = package(runs, output, version="1.0.1")
    assert verify_package(output, digest=digest).manifest.version == "1.0.1"
    assert digest != former
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-real"]


def test_a_replacement_that_fails_puts_the_former_package_back(tmp_path, monkeypatch):
    partial, output = tmp_path / "p.partial", tmp_path / "p"
    for folder, text in ((partial, "new"), (output, "former")):
        folder.mkdir()
        (folder / "f").write_text(text)
    rename = Path.replace

    def fail_once(path, target):
        if path == partial:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", fail_once)
    with pytest.raises(OSError, match="Permission denied"):
        assemble.replace_folder(partial, output)
    assert (output / "f").read_text() == "former"


def test_the_same_runs_give_the_same_package(runs, exported, tmp_path, monkeypatch):
    monkeypatch.setattr(package_from_runs, "onnx_from_module", altered_graph(exported, 1.0))
    digests = {package(runs, tmp_path / name) for name in ("a", "b")}
    assert len(digests) == 1
