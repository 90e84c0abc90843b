"""The shapes of JSON answers, for the OpenAPI; field names are the contract with clients."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_SHA = "7d865e959b2466918c9863afca942d0fb89d7c9ac0c99bafc3749504ded97730"


class ModelName(BaseModel):
    """Which model gave a result."""

    name: str = Field(examples=["peanut-lite0"])
    version: str = Field(examples=[_SHA[:12]])
    sha256: str = Field(examples=[_SHA])


class RunLengths(BaseModel):
    """COCO's compressed run lengths."""

    size: list[int] = Field(description="[height, width], px", examples=[[3024, 4032]])
    counts: str = Field(examples=["`jh1P1o0"])


class ClassAnswer(BaseModel):
    """One class of a photo."""

    id: int = Field(examples=[2])
    name: str = Field(examples=["weed"])
    role: Literal["background", "crop", "weed"]
    colour: str = Field(examples=["#ff0000"])
    coverage: float = Field(ge=0, le=1, description="share of the photo", examples=[0.0213])
    area_px: int = Field(ge=0, examples=[259_700])
    area_m2: float | None = Field(None, description="only when mm_per_px was given")
    rle: RunLengths


class PatchAnswer(BaseModel):
    """One connected patch of weed."""

    model_config = ConfigDict(serialize_by_alias=True)

    class_: str = Field(alias="class", examples=["weed"])
    area_px: int = Field(ge=1, examples=[5120])
    confidence: float = Field(ge=0, le=1, examples=[0.87])
    bbox: list[int] = Field(description="[x, y, width, height], px", examples=[[10, 20, 64, 80]])


class PhotoAnswer(BaseModel):
    """What the model says about one photo."""

    model_config = ConfigDict(json_schema_extra={"description": "What the model says."})

    photo: str = Field(examples=["0001.jpg"])
    width: int = Field(ge=1, examples=[4032])
    height: int = Field(ge=1, examples=[3024])
    model: ModelName
    evaluated: bool = Field(description="whether the model's accuracy was ever measured")
    evaluation_note: str
    classes: list[ClassAnswer]
    patches: list[PatchAnswer] = Field(description="weed only, the largest first, at most 500")
    confidence: float = Field(ge=0, le=1, description="mean over the photo", examples=[0.95])
    warnings: list[str]


class ServedClass(BaseModel):
    """One class that a model tells apart."""

    name: str = Field(examples=["crop"])
    role: Literal["background", "crop", "weed"]
    colour: list[int] = Field(examples=[[0, 255, 0]])


class ModelAnswer(ModelName):
    """One model of the service."""

    is_default: bool
    precision: str = Field(examples=["fp32"])
    tile_px: int = Field(examples=[512])
    evaluated: bool
    evaluation_note: str
    classes: list[ServedClass]


class ModelList(BaseModel):
    """All models of the service."""

    default: str = Field(description="the model that answers when none is named")
    previous: str | None = Field(description="the model that a rollback returns to")
    models: list[ModelAnswer]


class State(BaseModel):
    """Whether the service lives or is ready."""

    status: str = Field(examples=["ok"])


class ServerMetadata(BaseModel):
    """What the server is, Open Inference Protocol."""

    name: str = Field(examples=["weedseg"])
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """One input or output, Open Inference Protocol."""

    name: str = Field(examples=["images"])
    datatype: str = Field(examples=["FP32"])
    shape: list[int] = Field(description="-1 is any", examples=[[-1, 3, 512, 512]])


class InferenceModel(BaseModel):
    """One model, Open Inference Protocol."""

    name: str = Field(examples=["peanut-lite0"])
    versions: list[str]
    platform: str = Field(examples=["onnxruntime_onnx"])
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class InputTensor(BaseModel):
    """One tensor of a request."""

    name: Literal["images"]
    datatype: Literal["FP32"]
    shape: list[Annotated[int, Field(ge=1, le=4096)]] = Field(
        min_length=4, max_length=4, description="[N, 3, T, T]", examples=[[1, 3, 512, 512]]
    )
    data: list[Any] = Field(description="numbers in the order of the shape, flat or nested")
    parameters: dict[str, Any] | None = None


class WantedOutput(BaseModel):
    """One output that is asked for."""

    name: Literal["mask", "confidence"]
    parameters: dict[str, Any] | None = None


class InferenceRequest(BaseModel):
    """Tiles for the network, Open Inference Protocol."""

    id: str | None = None
    parameters: dict[str, Any] | None = None
    inputs: list[InputTensor] = Field(min_length=1, max_length=1)
    outputs: list[WantedOutput] | None = None


class OutputTensor(TensorMetadata):
    """One tensor of an answer."""

    data: list[int]


class InferenceAnswer(BaseModel):
    """What the network says, Open Inference Protocol."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


class InferenceState(BaseModel):
    """Whether the server or a model is live or ready, Open Inference Protocol."""

    live: bool | None = None
    ready: bool | None = None
    name: str | None = None
