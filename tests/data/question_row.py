"""A row of SQuAD."""

QA = {
    "id": "q1",
    "context": "It was blue.",
    "question": "Which colour?",
    "answers": {"text": ["blue"], "answer_start": [7]},
}
