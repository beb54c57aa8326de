"""Two faults that are not in the package: `ragprof demo --fault-module own_faults.py:FUNCTION`.

Each runs once inside the demo service when the faulty window starts, changes the running service
the way a bad deploy would have, and returns the truth.
"""

import difflib
import threading
import time


def near_duplicates(service):
    """Someone adds a filter for near-duplicates after the search: all pairs, by text distance."""
    search = service.search
    texts = [str(list(range(20 + n % 20))) for n in range(4000)]

    def search_without_near_duplicates(query, text, limit, strategy):
        hits = search(query, text, limit, strategy)
        return [hit for n, hit in enumerate(hits) if not is_near_duplicate(hit, hits[:n])]

    def is_near_duplicate(hit, earlier):
        matcher = difflib.SequenceMatcher(a=texts[hit.chunk], autojunk=False)
        ratios = []
        for other in earlier:
            matcher.set_seq2(texts[other.chunk])
            ratios.append(matcher.quick_ratio())
        return bool(ratios) and min(ratios) > 2  # never: the results stay what they were

    service.search = search_without_near_duplicates
    return {
        "stage": "retrieve",
        "kind": "cpu",
        "functions": [
            "own_faults:near_duplicates.<locals>.is_near_duplicate",
            "own_faults:near_duplicates.<locals>.search_without_near_duplicates",
        ],
        "service": "rag-api",
    }


def reload_under_lock(service):
    """The encoder is reloaded in the background, and each question waits for the reload's lock."""
    embed = service.embed
    lock = threading.Lock()

    def reload_forever():
        end = time.monotonic() + 600
        while time.monotonic() < end:
            with lock:
                time.sleep(0.15)  # the file server that holds the weights
            time.sleep(0.01)

    def embed_with_current_model(text):
        with lock:
            return embed(text)

    threading.Thread(target=reload_forever, daemon=True).start()
    service.embed = embed_with_current_model
    return {
        "stage": "embed",
        "kind": "lock_wait",
        "functions": ["own_faults:reload_under_lock.<locals>.embed_with_current_model"],
        "service": "rag-api",
    }
