"""Who sees whom when."""

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, status
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import get_session
from app.models import Appointment, Patient, Provider
from app.schemas import AppointmentIn, AppointmentOut

router = APIRouter(prefix="/appointments")


@router.post("", response_model=AppointmentOut, status_code=status.HTTP_201_CREATED)
async def book(wish: AppointmentIn, session: Annotated[AsyncSession, Depends(get_session)]) -> Appointment:
    """Book a slot. A constraint in the database prevents double bookings."""
    appointment = Appointment(
        provider=(await session.scalars(select(Provider).filter_by(licence=wish.licence))).one(),
        patient=(await session.scalars(select(Patient).filter_by(number=wish.patient_number))).one(),
        starts_at=wish.starts_at,
        cancelled=False,
    )
    session.add(appointment)
    try:
        await session.commit()
    except IntegrityError as error:
        raise HTTPException(status.HTTP_409_CONFLICT, "that slot is taken") from error
    return appointment


@router.delete("/{appointment_id}", response_model=AppointmentOut)
async def cancel(appointment_id: int, session: Annotated[AsyncSession, Depends(get_session)]) -> Appointment:
    """Cancel an appointment, which frees its slot."""
    appointment = await session.get(Appointment, appointment_id)
    if appointment is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, f"no appointment {appointment_id}")
    appointment.cancelled = True
    await session.commit()
    return appointment
