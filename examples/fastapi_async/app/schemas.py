"""What goes over the wire."""

from datetime import date

from pydantic import AwareDatetime, BaseModel, ConfigDict


class ProviderOut(BaseModel):
    """A provider, as anybody may see."""

    model_config = ConfigDict(from_attributes=True)

    licence: str
    name: str
    specialty_code: str


class PatientIn(BaseModel):
    """A new patient."""

    number: str
    name: str
    born_on: date


class PatientOut(PatientIn):
    """A patient, as the reception sees."""

    model_config = ConfigDict(from_attributes=True)

    id: int


class AppointmentIn(BaseModel):
    """A wish to be seen."""

    licence: str
    patient_number: str
    starts_at: AwareDatetime


class AppointmentOut(BaseModel):
    """An appointment as it stands."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    starts_at: AwareDatetime
    cancelled: bool
