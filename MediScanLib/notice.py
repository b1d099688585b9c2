"""The sentence that stands in every output and on every face."""

RESEARCH_USE_NOTICE = (
    "For research use only. Not a medical device: not cleared or approved for diagnosis or patient care."
)
