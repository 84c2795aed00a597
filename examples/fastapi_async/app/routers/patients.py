"""Who comes to be seen."""

from fastapi import APIRouter, HTTPException, status
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from app.db import SessionLocal
from app.models import Patient
from app.schemas import PatientIn, PatientOut

router = APIRouter(prefix="/patients")


@router.post("", response_model=PatientOut, status_code=status.HTTP_201_CREATED)
async def register(new: PatientIn) -> Patient:
    """Register a patient; the number must be new."""
    patient = Patient(**new.model_dump())
    try:
        async with SessionLocal.begin() as session:
            session.add(patient)
    except IntegrityError as error:
        raise HTTPException(status.HTTP_409_CONFLICT, f"patient {new.number} is registered already") from error
    return patient


@router.get("/{number}", response_model=PatientOut)
async def read_patient(number: str) -> Patient:
    """One patient, by number."""
    async with SessionLocal() as session:
        patient = (await session.scalars(select(Patient).filter_by(number=number))).one_or_none()
    if patient is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, f"no patient {number}")
    return patient
