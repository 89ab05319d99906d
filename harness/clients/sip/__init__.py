"""A small SIP stack for measuring: it says what happened and never helps the system under test along."""
