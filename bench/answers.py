"""Stacy's answers beside llama.cpp's on the same file and the same rendered prompt, greedy: python -m bench.answers > docs/answers.md

Texts part ways after some tokens even between two right implementations (two logits closer than either's rounding), so each row also says
where: what counts is that no answer is beside the question where the other is not. Needs llama-cpp-python (the `bench` extra).
"""

import argparse
import multiprocessing
from pathlib import Path

from app.models.llama import Llama, SamplingParams
from townhall import Conversation, load_persona

QUESTIONS = (
    "What is your name?",
    "What is the capital of France?",
    "Which is bigger, the earth or the moon?",
    "What year did World War II end?",
    "How many legs does a spider have?",
    "What color is the sky on a clear day?",
    "Who wrote Romeo and Juliet?",
    "What is 2 + 2?",
    "What do bees make?",
    "What is the opposite of hot?",
    "Name three fruits.",
    "What is the largest ocean?",
    "How do I make a cup of tea?",
    "Why do leaves fall in autumn?",
    "Tell me a joke.",
    "What is photosynthesis?",
    "What language do people speak in Brazil?",
    "How many days are in a week?",
    "Give me a rhyme about the rain.",
    "What should I wear when it is cold outside?",
)
MAX_TOKENS = 96


def peer_answers(path: Path, prompts: list[list[int]], stop_ids: frozenset[int], capacity: int) -> list[list[int]]:
    """llama.cpp's greedy continuation of each prompt, up to a stop id."""
    import llama_cpp

    peer, answers = llama_cpp.Llama(str(path), n_ctx=capacity, verbose=False), []
    for prompt in prompts:
        peer.reset()
        answer: list[int] = []
        for token in peer.generate(prompt, temp=0.0, repeat_penalty=1.0):
            if token in stop_ids or len(answer) == MAX_TOKENS:
                break
            answer.append(token)
        answers.append(answer)
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("app/models/llama/weights/SmolLM2-135M-Instruct.Q4_1.gguf"))
    parser.add_argument("--persona", default="stacy")
    args = parser.parse_args()

    llama = Llama.load(args.model)
    conversation = Conversation(llama, load_persona(args.persona), sampling=SamplingParams(temperature=0), max_tokens=MAX_TOKENS)
    prompts, ours, texts = [], [], []
    for question in QUESTIONS:
        conversation.reset()
        texts.append("".join(conversation.reply(question)))
        exchange = conversation.exchanges[-1]
        prompts.append([*conversation.prompt.head_ids, *exchange.user.ids])
        ours.append(list(exchange.reply.ids[: conversation.last.tokens if conversation.last else 0]))
    # a process of its own: two runtimes with their threads in one are no fair witness, and this pair was seen to crash
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        theirs = pool.apply(peer_answers, (args.model, prompts, conversation.prompt.stop_ids, llama.max_context))

    same = sum(a == b for a, b in zip(ours, theirs))
    print(f"# Twenty questions: {conversation.persona.name} and llama.cpp on the same prompt\n")
    print(f"`python -m bench.answers`, {args.model.name}, temperature 0, {llama.backend.describe()}.")
    print("Each question is asked alone, after the persona's head; llama.cpp is given the very ids that Townhall rendered.")
    print(f"{same} of {len(QUESTIONS)} answers are the same to the last token. Where they part, the column says after how many tokens:")
    print("two logits lay closer together there than the rounding of either.\n")
    print("| question | Townhall | llama.cpp | part after |\n|---|---|---|---|")
    for question, text, a, b in zip(QUESTIONS, texts, ours, theirs):
        parted = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
        cells = [question, text, llama.tokenizer.decode(b).strip(), "the same" if a == b else str(parted)]
        print("| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |")


if __name__ == "__main__":
    main()
