"""A definition of `sagemaker` held to botocore's own model of the calls that SageMaker makes, offline."""

from collections.abc import Iterator, Mapping
from typing import Any

from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator

LONGEST_ARGUMENT = 256
OPERATIONS = {
    "Processing": "CreateProcessingJob",
    "Model": "CreateModel",
    "Transform": "CreateTransformJob",
}
# A pipeline starts a job of these steps under a name of its own.
NAMED = {
    "Processing": {"ProcessingJobName": "x"},
    "Model": {"ModelName": "x"},
    "Transform": {"TransformJobName": "x"},
}


class DefinitionError(ValueError):
    """A step that SageMaker would refuse; the text names it."""


def jobs(made: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """List all steps that start something, in their order, those behind the condition too."""
    for step in made["Steps"]:
        yield from (step["Arguments"]["IfSteps"] if step["Type"] == "Condition" else [step])


def check(made: Mapping[str, Any]) -> None:
    """Hold each step's arguments to botocore's model of the call that SageMaker makes of them.

    Raises:
        DefinitionError: A field that the call does not have, lacks, or that is of another type.
    """
    model = ServiceModel(Loader().load_service_model("sagemaker", "service-2"))
    declared = {f"Parameters.{one['Name']}": one for one in made["Parameters"]}
    for step in jobs(made):
        shape = model.operation_model(OPERATIONS[step["Type"]]).input_shape
        call = _resolved(step["Arguments"], declared) | NAMED[step["Type"]]
        if shape is None or (report := ParamValidator().validate(call, shape)).has_errors():
            raise DefinitionError(f"step {step['Name']}: {report.generate_report()}")
        if unknown := _unknown(call, shape, step["Name"]):
            raise DefinitionError(f"{unknown[0]} is no field of {OPERATIONS[step['Type']]}")
        for text in call.get("AppSpecification", {}).get("ContainerArguments", []):
            if len(text) > LONGEST_ARGUMENT:
                raise DefinitionError(
                    f"step {step['Name']}: an argument of {len(text)} characters: {text[:60]}…"
                )


def _unknown(value: Any, shape: Any, path: str) -> list[str]:
    """Name the fields that a shape does not have: botocore's validator passes over some of them."""
    if shape.type_name == "structure" and isinstance(value, dict):
        strange = [f"{path}.{name}" for name in value if name not in shape.members]
        known = [name for name in value if name in shape.members]
        return strange + [
            one for name in known for one in _unknown(value[name], shape.members[name], f"{path}.{name}")
        ]
    if shape.type_name == "list" and isinstance(value, list):
        return [one for item in value for one in _unknown(item, shape.member, path)]
    return []


def _resolved(value: Any, declared: Mapping[str, Mapping[str, Any]]) -> Any:
    """Put an example of the right type in each variable's place."""
    if isinstance(value, list):
        return [_resolved(one, declared) for one in value]
    if not isinstance(value, dict):
        return value
    if "Std:Join" in value:
        join = value["Std:Join"]
        return join["On"].join(str(_resolved(one, declared)) for one in join["Values"])
    if "Get" in value:
        name = value["Get"]
        if name.startswith("Parameters.") and name not in declared:
            raise DefinitionError(f"{name} is no parameter of the pipeline")
        return (
            1 if declared.get(name, {}).get("Type") == "Integer" else "arn:aws:iam::111122223333:role/example"
        )
    return {name: _resolved(one, declared) for name, one in value.items()}
