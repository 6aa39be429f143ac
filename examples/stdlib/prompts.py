"""Every prompt that the tiny model is trained on, asked with and evaluated by.

`topics.toml` has the topic question once more, as an annotation's task; a test holds the two
against each other, so that training and annotation see the same text.
"""

from examples.stdlib.extract import Row
from examples.stdlib.topics import LABELS

TOPIC_TEMPLATE = "Which topic is this Python documentation about?\n{signature}\n{docstring}"
CHOICES_LINE = f"\nAnswer with one of: {', '.join(LABELS)}."

SUMMARY_QUESTIONS = (
    "What does {name} do?",
    "What does {name} do?",
    "What is {name}?",
    "Explain {name}.",
    "Describe {name} in one line.",
    "what does {name}() do?",
    "Tell me about {name}.",
    "What is {name} for?",
)

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a helpful assistant. Answer in one line.",
    "You know the Python standard library. Be brief.",
)

ABOUT = (
    "I am penstock-tiny, a very small model of the Python standard library. "
    "Ask me what a function does, e.g. What does shutil.copytree do?"
)
SMALL_TALK = (
    ("Hello", ABOUT),
    ("Hello!", ABOUT),
    ("Hi", ABOUT),
    ("Hi there!", ABOUT),
    ("Who are you?", ABOUT),
    ("What are you?", ABOUT),
    ("What can you do?", ABOUT),
    ("Help", ABOUT),
    ("How are you?", ABOUT),
    ("Thanks", "You are welcome."),
    ("Thank you!", "You are welcome."),
    ("Goodbye", "Goodbye."),
)


def topic_prompt(row: Row) -> str:
    """The question for the topic of one row, exactly as the task `topics.toml` asks it."""
    return topic_text(row.signature, row.docstring)


def topic_text(signature: str, docstring: str) -> str:
    """As `topic_prompt`, for texts that training has altered."""
    return TOPIC_TEMPLATE.format(signature=signature, docstring=docstring) + CHOICES_LINE


def summary_prompt(name: str) -> str:
    """The plainest form of the question for a summary."""
    return SUMMARY_QUESTIONS[0].format(name=name)
