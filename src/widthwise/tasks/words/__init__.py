"""Word vectors at every width: continuous bag of words, finite and infinite.

>>> from widthwise.tasks.words import BagOfWords, from_words, train
>>> corpus = from_words("one two three two one three one two".split() * 50)
>>> trained = train(corpus, settings=BagOfWords(sentence=100, sample=1.0))
>>> [word for word, cosine in trained.embeddings.nearest("one", 2)]  # doctest: +SKIP
['two', 'three']
"""

from widthwise.tasks.words.analogies import Analogies as Analogies
from widthwise.tasks.words.analogies import read_questions as read_questions
from widthwise.tasks.words.corpus import Corpus as Corpus
from widthwise.tasks.words.corpus import from_words as from_words
from widthwise.tasks.words.corpus import read as read
from widthwise.tasks.words.embeddings import Embeddings as Embeddings
from widthwise.tasks.words.machine import Threads as Threads
from widthwise.tasks.words.picture import CitiesAndStates as CitiesAndStates
from widthwise.tasks.words.settings import BagOfWords as BagOfWords
from widthwise.tasks.words.study import Study as Study
from widthwise.tasks.words.study import study as study
from widthwise.tasks.words.train import Trained as Trained
from widthwise.tasks.words.train import train as train
