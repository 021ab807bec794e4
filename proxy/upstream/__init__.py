"""Who answers: each kind of upstream in one file."""
