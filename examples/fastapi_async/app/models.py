"""The clinic's tables."""

from datetime import date, datetime

from sqlalchemy import DateTime, ForeignKey, Index, MetaData, String, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    """The base of all models; its naming convention lets migrations drop what they add."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Specialty(Base):
    """What a provider is good at."""

    __tablename__ = "specialties"

    code: Mapped[str] = mapped_column(String(20), primary_key=True)
    name: Mapped[str] = mapped_column(String(100))


class Provider(Base):
    """A doctor or a therapist."""

    __tablename__ = "providers"

    id: Mapped[int] = mapped_column(primary_key=True)
    licence: Mapped[str] = mapped_column(String(20), unique=True)
    name: Mapped[str] = mapped_column(String(100))
    specialty_code: Mapped[str] = mapped_column(ForeignKey("specialties.code"))

    specialty: Mapped[Specialty] = relationship(lazy="joined")


class Patient(Base):
    """Somebody who comes to be seen."""

    __tablename__ = "patients"

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[str] = mapped_column(String(20), unique=True)
    name: Mapped[str] = mapped_column(String(100))
    born_on: Mapped[date]


class Appointment(Base):
    """A patient's half hour with a provider."""

    __tablename__ = "appointments"
    __table_args__ = (
        Index(
            "uq_appointments_provider_slot",
            "provider_id",
            "starts_at",
            unique=True,
            postgresql_where=text("NOT cancelled"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    provider_id: Mapped[int] = mapped_column(ForeignKey("providers.id"))
    patient_id: Mapped[int] = mapped_column(ForeignKey("patients.id", ondelete="CASCADE"))
    starts_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    cancelled: Mapped[bool] = mapped_column(server_default=text("false"))

    provider: Mapped[Provider] = relationship()
    patient: Mapped[Patient] = relationship()
