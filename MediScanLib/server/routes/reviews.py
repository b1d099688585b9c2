"""Endpoints for what readers say about predictions."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AwareDatetime

from ...report.review import Review
from .. import schemas
from ..auth import Admin, HouseOf, Submitter

router = APIRouter(tags=["reviews"])


@router.post("/reviews", status_code=201)
async def add_review(said: schemas.ReviewIn, house: HouseOf, caller: Submitter) -> schemas.ReviewAdded:
    """Say something about a prediction that the server keeps. Reviews are added and never changed."""

    def add() -> int:
        prediction = house.studies.prediction(said.prediction)
        review = Review.of(
            prediction,
            agree=said.agree,
            finding=said.finding,
            corrected_label=said.corrected_label,
            corrected_severity=said.corrected_severity,
            note=said.note,
            region=said.region,
            reader=said.reader or caller.name,
        )
        number = house.reviews.add(review)
        house.audit.append("review.added", caller.name, {"prediction": said.prediction, "review": number})
        return number

    return schemas.ReviewAdded(number=await asyncio.to_thread(add))


@router.get("/reviews")
async def reviews(
    house: HouseOf,
    caller: Admin,
    model: Annotated[str | None, Query(max_length=200, description="Of this model only.")] = None,
    since: Annotated[AwareDatetime | None, Query(description="From this time on only.")] = None,
) -> schemas.ReviewList:
    """All reviews, each with its prediction. Needs the role admin: notes may name patients."""

    def read() -> list[Review]:
        found = house.reviews.of(model=model, since=since)
        house.audit.append("reviews.read", caller.name, {"count": len(found)})
        return found

    found = await asyncio.to_thread(read)
    return schemas.ReviewList(reviews=[review.model_dump(mode="json") for review in found])
