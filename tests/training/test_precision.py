import pytest

torch = pytest.importorskip("torch")

from assetgen.training import cli, precision  # noqa: E402
from assetgen.training.precision import autocast, has_bf16, settled  # noqa: E402
from assetgen.training.recipe import TextureRecipe  # noqa: E402


@pytest.mark.parametrize(("native", "meant"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_what_the_device_multiplies(monkeypatch, native, meant):
    monkeypatch.setattr(precision, "has_bf16", lambda kind: native and kind == "cpu")
    assert settled("auto", "cpu") == meant
    assert settled("auto", "cuda:1") == "fp32"
    with autocast(TextureRecipe(), "cpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == {"bf16": torch.bfloat16, "fp32": torch.float32}[meant]


@pytest.mark.parametrize("asked", ["bf16", "fp32"])
def test_what_was_asked_for_is_done_whatever_the_device(monkeypatch, asked):
    monkeypatch.setattr(precision, "has_bf16", lambda kind: asked == "fp32")
    assert settled(asked, "cpu") == asked


def test_the_processor_is_asked_for_any_of_its_units(monkeypatch):
    units = {"avx2": True, "avx512_bf16": False, "amx_bf16": True, "cpu_name": "x"}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units)
    has_bf16.cache_clear()
    assert has_bf16("cpu")
    units["amx_bf16"] = False
    has_bf16.cache_clear()
    assert not has_bf16("cpu")
    has_bf16.cache_clear()


@pytest.mark.parametrize(("native", "meant"), [(True, "bf16"), (False, "fp32")])
def test_a_run_keeps_what_it_takes(monkeypatch, tmp_path, capsys, native, meant):
    monkeypatch.setattr(precision, "has_bf16", lambda kind: native)
    (tmp_path / "recipe.toml").write_text("batch = 4", encoding="utf-8")
    arguments = cli._parser().parse_args(["texture", "--data=x.zip", f"--recipe={tmp_path / 'recipe.toml'}"])
    assert cli._recipe(arguments, "cpu", TextureRecipe).precision == meant
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("native", [True, False])
def test_who_asks_for_what_is_emulated_gets_it_and_is_told(monkeypatch, tmp_path, capsys, native):
    monkeypatch.setattr(precision, "has_bf16", lambda kind: native)
    (tmp_path / "recipe.toml").write_text('precision = "bf16"', encoding="utf-8")
    arguments = cli._parser().parse_args(["texture", "--data=x.zip", f"--recipe={tmp_path / 'recipe.toml'}"])
    assert cli._recipe(arguments, "cpu", TextureRecipe).precision == "bf16"
    assert ("cpu has no bf16" in capsys.readouterr().err) is not native
