"""A clinics' web application: several clinics (tenants), their clinicians, patients and visits."""
