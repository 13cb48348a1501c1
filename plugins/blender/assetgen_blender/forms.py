"""Forms drawn from what the server says of its models: a property group for each, and recipes from their values."""

import hashlib
import json
import re
from typing import Any

import bpy
from bpy.props import BoolProperty, EnumProperty, FloatProperty, IntProperty, PointerProperty, StringProperty

from .job import AddonError

MAX_SEED = 2**32 - 1
INT_RANGE = range(-(2**31), 2**31)  # of Blender's whole numbers; larger ones become text fields
PARAMETER = re.compile(r"[a-z][a-z0-9_]{0,47}")
RECIPE = "assetgen_recipe"

server: Any = None  # a client.Server once connected
problem: AddonError | None = None  # why it is not
_forms: dict[str, type] = {}  # attribute of Scene to the group behind it
_NO_MODEL = ("NONE", "Choose a model", "", 0, 0)  # what a new scene has
_models = [_NO_MODEL]  # Blender needs the strings to stay alive


class ASSETGEN_PG_settings(bpy.types.PropertyGroup):
    """What every model has; the rest is in the model's own form."""

    model: EnumProperty(name="Model", description="What makes the material", items=lambda _self, _context: _models)
    seed: StringProperty(name="Seed", description=f"Whole number from 0 to {MAX_SEED}", default="1")
    use_displacement: BoolProperty(
        name="Displacement", description="Move the surface by the height map (Cycles, on a subdivided mesh)"
    )

    @property
    def form(self) -> Any:
        """The form of the chosen model; raises AddonError when there is none."""
        if server is None or self.model not in server.models:
            raise AddonError("no model is chosen", "connect to a server, then choose one")
        return getattr(self.id_data, _attribute(server.models[self.model]))


def set_server(new: Any, why_not: AddonError | None = None) -> None:
    """Take over what a server offers, or why there is none, and register the forms of its models."""
    global server, problem
    groups = {_attribute(model): _group(model) for model in new.models.values()} if new else {}  # may raise
    server, problem = new, why_not
    for attribute, group in _forms.items():
        delattr(bpy.types.Scene, attribute)
        bpy.utils.unregister_class(group)
    _forms.clear()
    _models[1:] = []
    for attribute, group in groups.items():
        bpy.utils.register_class(group)
        setattr(bpy.types.Scene, attribute, PointerProperty(type=group))
        _forms[attribute] = group
    for model in new.models.values() if new else ():
        # A number of its own, so that a saved choice survives a change of the list.
        number = int(hashlib.sha256(model.id.encode()).hexdigest()[:7], 16) + 1
        _models.append((model.id, model.display_name or model.id, model.description, 0, number))
    for scene in bpy.data.scenes if len(_models) > 1 else ():
        if scene.assetgen.get("model", 0) not in {item[-1] for item in _models[1:]}:
            scene.assetgen.model = _models[1][0]


def whole_number(text: str, low: int, high: int, name: str) -> int:
    """The number in a text field; raises AddonError."""
    if not re.fullmatch(r"\s*-?\d{1,20}\s*", text) or not low <= int(text) <= high:
        raise AddonError(f"{name}: {text!r:.40} is not allowed", f"use a whole number from {low} to {high}")
    return int(text)


def recipe_of(settings: ASSETGEN_PG_settings) -> dict[str, Any]:
    """Everything that the material depends on."""
    form, model = settings.form, server.models[settings.model]
    missing = [spec.label for spec in model.parameters if spec.required and field_of(spec) is None]
    if missing:
        raise AddonError(f"{model.display_name} needs what this add-on cannot send: {', '.join(missing)}", "update it")
    return {
        "model_id": model.id,
        "model_digest": model.digest.hex(),
        "seed": whole_number(settings.seed, 0, MAX_SEED, "Seed"),
        "width_px": form.width_px,
        "height_px": form.height_px,
        "parameters": {spec.name: _value(form, spec) for spec in model.parameters if field_of(spec)},
    }


def read_recipe(material: bpy.types.Material) -> dict[str, Any]:
    """The recipe that a material was made from; raises AddonError."""
    try:
        recipe = json.loads(material[RECIPE])
        return recipe | {"seed": int(recipe["seed"]), "parameters": dict(recipe["parameters"])}
    except (KeyError, ValueError, TypeError):
        raise AddonError(f"the recipe of {material.name!r} is damaged", "generate the material anew") from None


def names_of(recipe: dict[str, Any]) -> tuple[str, str]:
    """The material's name and the base of its files' names; the latter differs for every recipe."""
    kind = str(recipe["parameters"].get("class", recipe["model_id"]))
    label = kind.replace("_", " ").capitalize()
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:8]
    return f"{label[:40]} {recipe['seed']}", f"{re.sub(r'[^A-Za-z0-9]+', '_', kind)[:32]}_{recipe['seed']}_{digest}"


def field_of(spec: Any) -> str | None:
    """Name of the form's property for a parameter; None for kinds that have no field here."""
    return f"param_{spec.name}" if spec.WhichOneof("type") in ("float_spec", "int_spec", "choice_spec") else None


def _value(form: Any, spec: Any) -> str | int | float:
    value = getattr(form, field_of(spec))
    if spec.WhichOneof("type") == "float_spec":  # Blender's numbers have 32 bits: 0.8 comes back as 0.800000011920929
        return float(min(max(float(f"{value:.6g}"), spec.float_spec.min), spec.float_spec.max))
    if spec.WhichOneof("type") == "int_spec" and isinstance(value, str):
        return whole_number(value, spec.int_spec.min, spec.int_spec.max, spec.label)
    return value


def _attribute(model: Any) -> str:
    return f"assetgen_form_{model.digest.hex()[:12]}"


def _group(model: Any) -> type:
    """A property group with a field for each parameter, and the size."""
    size, fields = model.size, {}
    edge = {"min": size.min_px, "max": size.max_px, "default": size.default_px, "step": size.stride_px}
    about = f"In pixels, a multiple of {size.stride_px}"
    labels = {}
    for spec in model.parameters:
        if not PARAMETER.fullmatch(spec.name):
            raise AddonError(f"the server describes a parameter {spec.name!r:.40}", "update the server")
        if spec.name == "class":
            labels = dict(zip(spec.choice_spec.values, model.class_labels, strict=False))
    for spec in model.parameters:
        if name := field_of(spec):
            fields[name] = _field(spec, labels)
    fields["width_px"] = IntProperty(name="Width", description=about, subtype="PIXEL", **edge)
    fields["height_px"] = IntProperty(name="Height", description=about, subtype="PIXEL", **edge)
    return type(f"ASSETGEN_PG_{_attribute(model)}", (bpy.types.PropertyGroup,), {"__annotations__": fields})


def _field(spec: Any, labels: dict[str, str]) -> Any:
    facts = {"name": spec.label or spec.name, "description": spec.description}
    match spec.WhichOneof("type"):
        case "float_spec":
            number = spec.float_spec
            return FloatProperty(min=number.min, max=number.max, default=number.default_value, step=5, **facts)
        case "int_spec":
            whole = spec.int_spec
            if whole.min in INT_RANGE and whole.max in INT_RANGE:
                return IntProperty(min=whole.min, max=whole.max, default=whole.default_value, **facts)
            facts["description"] += f" Whole number from {whole.min} to {whole.max}"
            return StringProperty(default=str(whole.default_value), **facts)
        case _:
            choice = spec.choice_spec
            items = [(value, labels.get(value, value.replace("_", " ").capitalize()), "") for value in choice.values]
            return EnumProperty(items=items, default=choice.default_value or choice.values[0], **facts)
