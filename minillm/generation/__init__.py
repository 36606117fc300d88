"""From a model to text: sampling, the key/value cache and the loop."""

from minillm.generation.cache import ContiguousCache as ContiguousCache
from minillm.generation.loop import generate as generate
from minillm.generation.loop import generate_text as generate_text
from minillm.generation.loop import stream as stream
from minillm.generation.loop import stream_text as stream_text
from minillm.generation.sampling import Sampler as Sampler
from minillm.generation.sampling import greedy as greedy
from minillm.generation.sampling import sample as sample
