"""How people ask for a capital or a country. `{c}`: country, `{k}`: capital city."""

from __future__ import annotations

OPENINGS: tuple[str, ...] = (
    "hey", "hi", "hello", "please", "quick question:", "ok", "okay", "so", "well", "um", "hmm",
    "excuse me,", "sorry,", "hey there,", "hi there,", "now", "one more:", "next:",
    "next question:", "question:", "I have a question:", "I was wondering,", "just curious,",
    "good morning,", "yo", "quiz:", "trivia time:", "help:", "thanks!", "great,", "cool,", "and",
    "also", "ok so", "alright,", "oh and", "hey bot,", "tell me,", "another one:", "pls",
    "please answer:", "then", "dear model,", "for my homework:", "I need to know", "right,",
    "thank you,", "nice,", "wow,", "hi!", "hello!", "Hey!", "ok,", "so,", "well,", "listen,",
    "good evening,", "let me ask:",
)  # fmt: skip

ASKINGS: tuple[str, ...] = (
    "can you tell me", "could you tell me", "please tell me", "tell me", "do you know",
    "I want to know", "would you tell me", "I'd like to know", "can you say", "let me know",
    "could you please tell me", "can you please tell me", "remind me", "do you happen to know",
    "I need to know", "any idea", "I wonder", "you know", "I forgot", "would you know",
    "can u tell me", "pls tell me", "explain to me", "might you know", "can you remind me",
)  # fmt: skip

CLOSINGS: tuple[str, ...] = (
    "please", "thanks", "thank you", "pls", "plz", "again", "exactly", "by the way", "btw", "now",
    "in one sentence", "if you know", "I forgot", "for me", "today", "really", "mate", "my friend",
    "thx", "then", "do you know", "I wonder", "help me", "any idea", "quickly", "for a quiz",
)  # fmt: skip

# Noun phrases: they stand alone, after "what is", and after "tell me".
FORWARD_NOUNS: tuple[str, ...] = (
    "the capital of {c}", "the capital city of {c}", "capital of {c}", "capital city of {c}",
    "{c}'s capital", "{c}'s capital city", "the capital for {c}", "the {c} capital",
    "the capital in {c}", "the name of the capital of {c}", "the capital town of {c}",
    "the official capital of {c}", "the national capital of {c}", "the seat of government of {c}",
    "the name of {c}'s capital", "the capital city in {c}", "the capital of the country {c}",
    "the capital of the country called {c}", "the current capital of {c}", "the capitol of {c}",
    "capitol of {c}", "the capital city for {c}", "the main city and capital of {c}",
    "the capital city's name of {c}", "the capital that {c} has", "cap of {c}",
)  # fmt: skip

FORWARD_QUESTIONS: tuple[str, ...] = (
    "what city is the capital of {c}", "which city is the capital of {c}",
    "which city is {c}'s capital", "what city is {c}'s capital", "what capital does {c} have",
    "which capital does {c} have", "which town is the capital of {c}", "{c} has which capital",
    "where is the capital of {c}", "what do you call the capital of {c}",
    "what is the capital called in {c}", "how is the capital of {c} called",
    "what do they call the capital of {c}", "in {c}, what is the capital",
    "what's the capital city over in {c}", "what would be the capital of {c}",
    "which is the capital of {c}", "what would you say is the capital of {c}",
    "what city serves as the capital of {c}", "which city serves as capital of {c}",
    "who is the capital of {c}", "whats the name of the capital in {c}",
    "what's {c}'s capital called", "what place is the capital of {c}", "{c} what is its capital",
    "{c}, what is the capital", "what was the capital of {c}", "what is {c} capital",
    "what's {c} capital", "whats {c}s capital", "what is {c} capital city",
    "can you name the capital of {c}", "could you name the capital city of {c}",
    "may I ask what the capital of {c} is", "do you know what the capital of {c} is",
    "tell me what the capital of {c} is", "tell me which city is the capital of {c}",
    "I want to know what {c}'s capital is", "do you know {c}'s capital",
    "the capital of {c} is what", "the capital of {c} is which city", "{c}'s capital is",
    "the capital of {c} is", "what is the capital of a country called {c}",
    "where does the government of {c} sit", "is there a capital in {c} and what is it called",
    "I'm going to {c}. What is the capital", "I live in {c}. What's the capital",
    "my friend is from {c}. What is its capital", "what is the capital of {c} and nothing else",
    "say the capital of {c}", "if I fly to the capital of {c}, where do I land",
    "what is the capital of {c} called", "which city do people mean by the capital of {c}",
    "what's the captial of {c}", "waht is the capital of {c}", "wat is the capital of {c}",
    "wats the capital of {c}", "what the capital of {c}", "what capital of {c}",
    "what is capital of {c}", "where's {c}'s capital", "in which city is the capital of {c}",
    "capital city, {c}",
)  # fmt: skip

FORWARD_ORDERS: tuple[str, ...] = (
    "name the capital of {c}", "give me the capital of {c}", "give the capital city of {c}",
    "{c} capital", "{c} capital city", "capital {c}", "capital: {c}", "{c}: capital",
    "{c} - capital", "{c} capital?", "capital, {c}", "state the capital of {c}",
    "complete: the capital of {c} is", "write the capital of {c}", "identify the capital of {c}",
    "look up the capital of {c}", "find the capital of {c}", "show me the capital of {c}",
    "tell me {c}'s capital", "tell me the capital city of {c}", "tell me about the capital of {c}",
    "fill in: the capital of {c} is ___", "the capital of {c} is ...", "country: {c}. capital:",
    "{c} => capital", "give me {c}'s capital city", "name {c}'s capital",
    "I need the capital of {c}", "I'm looking for the capital of {c}", "I want the capital of {c}",
    "the capital city of {c}, name it", "answer with the capital of {c}",
)  # fmt: skip

# Around a noun phrase of FORWARD_NOUNS.
FORWARD_FRAMES: tuple[str, ...] = (
    "what city is {np}", "which place is {np}", "which city is known as {np}", "{np}, what is it",
    "{np} - which city is it", "{np} is where", "what could {np} be", "what's {np} again",
    "is it hard to name {np}", "name me {np}", "I forgot {np}", "I don't know {np}",
    "do you remember {np}", "does anyone know {np}", "I need {np} for my homework",
    "help me with {np}", "I am looking for {np}", "say {np}", "{np} would be",
    "{np}: which city", "where would I find {np}", "how is {np} called", "spell out {np}",
    "what do we call {np}", "what is the name for {np}", "could it be that you know {np}",
    "what's the name of the city that is {np}", "which city counts as {np}",
    "what are you going to say is {np}", "what do you think is {np}", "I'd like {np}",
    "what city do they use as {np}", "what is considered {np}", "which city became {np}",
)  # fmt: skip

YES_NO: tuple[str, ...] = (
    "is {k} the capital of {c}", "is {k} {c}'s capital", "{k} is the capital of {c}, right",
    "is the capital of {c} {k}", "isn't {k} the capital of {c}", "is {k} the capital city of {c}",
    "the capital of {c} is {k}, isn't it", "is it true that {k} is the capital of {c}",
)  # fmt: skip

BACKWARD_QUESTIONS: tuple[str, ...] = (
    "{k} is the capital of which country", "{k} is the capital of what country",
    "{k} is the capital of what", "which country has {k} as its capital",
    "what country has {k} as its capital", "which country has the capital {k}",
    "what country has the capital {k}", "which country's capital is {k}",
    "what country's capital is {k}", "of which country is {k} the capital",
    "of what country is {k} the capital", "what is {k} the capital of",
    "which country is {k} the capital of", "what country is {k} the capital of",
    "what's {k} the capital of", "whats {k} the capital of",
    "{k} is the capital city of which country", "{k} is which country's capital",
    "{k} is the capital of", "for which country is {k} the capital",
    "which nation has {k} as its capital", "what nation has its capital at {k}",
    "which state has {k} as capital city", "whose capital is {k}", "whose capital city is {k}",
    "which country is governed from {k}", "{k} is capital of which country",
    "{k} capital of which country", "{k} capital of what country",
    "{k} is the capital of which nation", "which country does {k} belong to as the capital",
    "name the country whose capital is {k}", "name the country with the capital {k}",
    "tell me which country has {k} as its capital", "which country has {k} for a capital",
    "if the capital is {k}, which country is it", "the country whose capital is {k}",
    "the country with {k} as its capital", "{k} is the capital of?",
    "what is the country whose capital is {k}", "the capital is {k}, what is the country",
    "give me the country that has {k} as its capital", "capital {k}, which country",
    "{k} is a capital. Of which country", "do you know which country has {k} as its capital",
    "which country is {k} in", "what country is {k} in", "in which country is {k}",
    "in what country is {k}", "{k} is in which country", "where is {k}",
    "{k} - the capital of which country", "{k} is the capital of which state",
    "{k} the capital of which country", "what country is {k} capital of",
    "which country is {k} capital of", "which country uses {k} as its capital", "{k} country",
    "the capital of which country is {k}", "{k} which country", "country with capital {k}",
    "country whose capital is {k}", "I was in {k}. Which country is that the capital of",
)  # fmt: skip

# These two make a question together.
COUNTRY_ASKED: tuple[str, ...] = (
    "which country", "what country", "which nation", "what nation", "which of the countries",
    "which state", "tell me which country", "name the country that", "which country is it that",
    "what is the country that", "the country that", "do you know which country",
)  # fmt: skip
HAS_CAPITAL: tuple[str, ...] = (
    "has {k} for its capital", "has its capital in {k}", "uses {k} as its capital",
    "is ruled from {k}", "has the capital city {k}", "has {k} as capital",
    "lists {k} as its capital", "considers {k} its capital", "has a capital named {k}",
    "has a capital called {k}", "keeps its government in {k}", "has made {k} its capital",
    "has its seat of government in {k}", "names {k} as its capital city",
)  # fmt: skip

# After an earlier question for a capital. The bare name is one of them.
FORWARD_FOLLOW_UPS: tuple[str, ...] = (
    "and of {c}", "and {c}", "what about {c}", "how about {c}", "{c}", "and for {c}",
    "and that of {c}", "and the one of {c}", "what about the one of {c}", "and what about {c}",
    "and how about {c}", "same for {c}", "same question for {c}", "now {c}", "and in {c}", "of {c}",
    "for {c}", "also {c}", "and what is it for {c}", "and {c}'s", "and of {c}, please",
    "ok and {c}", "then {c}", "next: {c}", "what about that of {c}", "tell me the one for {c}",
    "and the capital of {c}", "what of {c}", "what is it for {c}", "what is it in {c}",
    "and now {c}", "and {c} too", "do {c}", "{c} now", "and what's {c}'s", "let's do {c}",
    "thanks, and {c}", "great, and {c}", "cool, what about {c}", "wbu {c}", "or {c}",
    "and also {c}", "how about the one in {c}", "now the same for {c}", "try {c}",
    "and the one for {c}", "maybe {c}", "what about in {c}", "ok what about {c}", "ok {c}", "& {c}",
)  # fmt: skip

# These two make a follow-up together.
PRAISE: tuple[str, ...] = (
    "great", "nice", "perfect", "fine", "right", "super", "thanks", "ok", "cool", "wow", "alright",
    "very good", "thank you", "excellent", "interesting", "I see", "correct", "awesome", "oh",
    "okay", "sure", "yes", "lovely", "hmm ok", "makes sense", "understood", "well",
)  # fmt: skip
SHORT_FOLLOW_UPS: tuple[str, ...] = (
    "{c}", "now {c}", "and {c}", "{c} next", "next {c}", "then {c}", "how about {c}", "{c} too",
    "what about {c}", "next one: {c}", "and what about {c}", "let's take {c}", "go on with {c}",
    "tell me for {c}", "the one of {c}", "and that of {c}", "I also need {c}", "{c} as well",
)  # fmt: skip

BACKWARD_FOLLOW_UPS: tuple[str, ...] = (
    "and {k}", "what about {k}", "how about {k}", "{k}", "and what about {k}", "now {k}",
    "same for {k}", "and of {k}", "then {k}", "ok and {k}", "what of {k}", "also {k}", "next: {k}",
)  # fmt: skip

PLAIN_FORWARD: tuple[str, ...] = (
    "capital of {c}", "capital of {c}", "what is the capital of {c}", "what is the capital of {c}",
    "whats the capital of {c}", "what's the capital of {c}", "the capital of {c}", "{c} capital",
    "capital city of {c}", "tell me the capital of {c}", "what is the capital city of {c}",
)  # fmt: skip
