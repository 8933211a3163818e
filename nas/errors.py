"""The error a user of the machine can make: its message is one line, the command line shows nothing else."""


class UserError(ValueError):
    """A mistake of the user's. The message gives the value, the rule and the way out, in one line."""


class CandidateError(UserError):
    """What makes one candidate impossible; a search records it as the candidate's failure and goes on."""
