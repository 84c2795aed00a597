"""Who can be seen."""

from typing import Annotated

from fastapi import APIRouter, Depends
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import get_session
from app.models import Provider
from app.schemas import ProviderOut

router = APIRouter(prefix="/providers")


@router.get("", response_model=list[ProviderOut])
async def list_providers(
    session: Annotated[AsyncSession, Depends(get_session)], specialty: str | None = None
) -> list[Provider]:
    """All providers, or those of one specialty, by licence."""
    query = select(Provider).order_by(Provider.licence)
    if specialty is not None:
        query = query.filter_by(specialty_code=specialty)
    return list(await session.scalars(query))
