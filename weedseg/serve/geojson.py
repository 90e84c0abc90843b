"""The part of GeoJSON (RFC 7946) that the boundary of a field needs.

It is checked before a job is accepted, so that a worker parses only coordinates.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, FiniteFloat, model_validator

MAX_CORNERS = 5000
"""Corners of all polygons of a boundary: it goes with the job and is read with every list."""

Position = Annotated[list[FiniteFloat], Field(min_length=2, max_length=4)]
"""Longitude and latitude in degrees (or x and y of `crs`), height; only the first two count."""
Ring = Annotated[list[Position], Field(min_length=4)]
Rings = Annotated[list[Ring], Field(min_length=1)]


class Polygon(BaseModel):
    """One area, maybe with holes: the first ring is its outline."""

    type: Literal["Polygon"]
    coordinates: Rings

    def polygons(self) -> list[list[list[list[float]]]]:
        """List the rings of each polygon."""
        return [self.coordinates]


class MultiPolygon(BaseModel):
    """Several areas that are one field."""

    type: Literal["MultiPolygon"]
    coordinates: Annotated[list[Rings], Field(min_length=1)]

    def polygons(self) -> list[list[list[list[float]]]]:
        """List the rings of each polygon."""
        return self.coordinates


class FieldName(BaseModel):
    """What messages call a field."""

    name: str | None = Field(None, max_length=200)


class FieldFeature(BaseModel):
    """One field."""

    type: Literal["Feature"]
    geometry: Annotated[Polygon | MultiPolygon, Field(discriminator="type")]
    properties: FieldName | None = None


class CrsName(BaseModel):
    """Name of a coordinate reference system."""

    name: str = Field(max_length=100, examples=["urn:ogc:def:crs:OGC:1.3:CRS84"])


class NamedCrs(BaseModel):
    """What programs write that do not keep to degrees."""

    type: Literal["name"]
    properties: CrsName


class FieldBoundary(BaseModel):
    """GeoJSON of one or more fields; the one that lies on the mosaic counts."""

    type: Literal["FeatureCollection"]
    features: list[FieldFeature] = Field(min_length=1, max_length=MAX_CORNERS)
    crs: NamedCrs | None = Field(None, description="degrees (OGC:CRS84) without it")

    @model_validator(mode="after")
    def _check_corners(self) -> FieldBoundary:
        polygons = [p for feature in self.features for p in feature.geometry.polygons()]
        corners = sum(len(ring) for rings in polygons for ring in rings)
        if corners > MAX_CORNERS:
            raise ValueError(
                f"a boundary of {corners} corners; expected at most {MAX_CORNERS}; simplify it"
            )
        return self
