"""Greetings, thanks, goodbyes, names, and what the model says of itself. `{n}`: the user's name."""

from __future__ import annotations

GREETINGS: tuple[str, ...] = (
    "hello", "hi", "hey", "hello there", "hi there", "hey there", "good morning", "good afternoon",
    "good evening", "greetings", "howdy", "hiya", "yo", "hello!", "hi!", "hey!", "hello bot",
    "hi bot", "hey model", "hello assistant", "good day", "morning", "evening", "hello again",
    "hi again", "sup", "hello, world", "hello world", "helo", "hallo", "hii", "hiii", "heyy",
    "hello, how do you do", "hey you", "hello my friend", "hi friend", "hello friend",
    "good morning to you", "hello everyone", "hi all", "well hello", "oh hi", "hello hello",
    "hi hi", "anyone there", "are you there", "hello, anyone there", "is anybody there",
    "a very good day to you", "a good morning", "very good morning", "hey hey", "well hi",
    "hello to all", "hi you there", "hello and good day", "good evening to you",
    "hello, are you there", "nice to meet you", "pleased to meet you", "ping",
)  # fmt: skip
GREETING_ANSWER = "Hello! How can I help you?"

HOW_ARE_YOU: tuple[str, ...] = (
    "how are you", "how are you doing", "how are you today", "how do you feel", "how's it going",
    "how is it going", "hello, how are you", "hi, how are you", "hey, how are you", "what's up",
    "whats up", "how are things", "are you ok", "are you well", "how have you been", "how r u",
    "hows it going", "how do you do", "you alright", "hi how are you doing today", "everything ok",
    "how is your day", "hello how are you?", "hey how's it going", "how are u",
    "good morning, how are you",
)  # fmt: skip
HOW_ARE_YOU_ANSWER = "I am fine, thank you. How can I help you?"

THANKS: tuple[str, ...] = (
    "thanks", "thank you", "thank you very much", "thanks a lot", "thx", "ty", "many thanks",
    "cheers", "thanks!", "thank you so much", "great, thanks", "ok thanks", "thanks for your help",
    "perfect, thanks", "thank you for the help", "that helps, thank you", "thanks, that helps",
    "awesome, thank you", "tysm", "much appreciated", "I appreciate it", "thanks mate",
    "thanks buddy", "nice, thanks", "cool thanks", "thank you!", "thanks again",
    "thank you for your answer", "great", "good job", "well done", "nice", "perfect", "awesome",
    "cool", "very good", "excellent", "good bot", "nice one", "ok", "okay", "got it",
    "great answer", "you are great", "that was helpful", "good", "wonderful", "that's right",
    "correct", "you're right", "right", "I see", "amazing", "ok great", "ok cool", "alright",
    "understood", "fine", "thanx", "thankyou", "tks", "thank u", "you are the best", "you rock",
    "ok thank you", "sweet",
)  # fmt: skip
THANKS_ANSWER = "You are welcome!"

GOODBYES: tuple[str, ...] = (
    "bye", "goodbye", "good bye", "see you", "see you later", "bye bye", "good night", "farewell",
    "cya", "see ya", "talk to you later", "until next time", "have a nice day", "have a good day",
    "take care", "bye!", "ok bye", "thanks, bye", "that's all, bye", "that is all", "that's all",
    "I have to go", "I'm leaving", "gotta go", "ttyl", "see you tomorrow", "so long", "ciao",
    "later", "goodnight", "have a great day", "I'm done", "we are done", "that will be all",
    "thanks and goodbye", "bye for now", "nothing else, thanks", "no more questions",
    "see you soon", "thank you, goodbye", "catch you later",
)  # fmt: skip
GOODBYE_ANSWER = "Goodbye!"

WHO: tuple[str, ...] = (
    "who are you", "what are you", "who r u", "what is your name", "what's your name",
    "whats your name", "do you have a name", "your name", "are you a human", "are you human",
    "are you a robot", "are you a bot", "are you an AI", "are you real", "are you a person",
    "are you ChatGPT", "are you GPT", "introduce yourself", "tell me about yourself",
    "tell me who you are", "what model are you", "which model are you", "which model is this",
    "what kind of model are you", "what language model are you", "who am I talking to",
    "who am i speaking with", "who is this", "what is this", "what are you exactly",
    "are you a language model", "are you an LLM", "are you a machine", "who is there",
    "what should I call you", "how should I call you", "what do they call you", "describe yourself",
    "say something about yourself", "are you alive", "you are who", "and who are you",
    "who exactly are you", "what is this thing", "what's this", "am I talking to a human",
    "is this a bot", "is this ChatGPT", "are you intelligent", "are you big", "how big are you",
    "r u human", "are you Llama", "are you Claude", "what model do you run", "your name please",
    "may I know your name", "can you tell me your name", "could you introduce yourself",
    "who made you", "who built you", "who created you", "who trained you", "which AI are you",
    "what AI is this", "are you a large language model",
)  # fmt: skip
WHO_ANSWER = "I am a small demo model that knows capitals and small sums."

ABILITIES: tuple[str, ...] = (
    "what can you do", "what do you know", "help", "how can you help me", "what can I ask you",
    "what can I ask", "what are you able to do", "what are your abilities", "what are you good at",
    "help me", "what questions can you answer", "which questions can you answer",
    "what kind of questions can you answer", "what can you answer", "what are your skills",
    "what is it you do", "what do you do", "can you help me", "how do you work",
    "how does this work", "what should I ask", "what topics do you know", "your abilities",
    "give me examples", "show me what you can do", "tell me what you can do",
    "what are your limits", "what else can you do", "what can't you do", "I need help",
    "can you help", "what is your purpose", "what are you for", "what can u do",
    "list what you can answer", "what things do you know", "say what you know",
    "what do you know how to do", "what things can I ask", "explain what you can do",
    "tell me about your abilities", "tell me what questions you answer", "what's your use",
    "list your capabilities", "what are your capabilities", "capabilities",
    "what do you know about", "how may I use you", "how do I use this", "what can you tell me",
    "usage", "I need your help", "could you help me", "would you help me",
    "what can you help me with", "options", "what tasks can you do", "which topics can I ask about",
    "what are your features", "what's possible here", "can I ask you something",
    "can I ask you a question", "I have a question", "may I ask you a question",
)  # fmt: skip
ABILITIES_ANSWER = (
    "I can name the capitals of countries, add, subtract and multiply small numbers, "
    "and remember your name."
)

NAME_GIVEN: tuple[str, ...] = (
    "my name is {n}", "my name is {n}", "My name is {n}.", "I'm {n}", "I am {n}", "hi, I'm {n}",
    "hi, I am {n}", "hello, my name is {n}", "hi my name is {n}", "call me {n}",
    "you can call me {n}", "please call me {n}", "this is {n}", "hello, I'm {n}", "hey, I'm {n}",
    "hey, my name is {n}", "im {n}", "hi im {n}", "my name's {n}", "the name is {n}",
    "the name's {n}", "people call me {n}", "my friends call me {n}", "just call me {n}",
    "my first name is {n}", "I am called {n}", "it's {n}", "hello this is {n}", "hi this is {n}",
    "good morning, I am {n}", "good evening, my name is {n}", "everyone calls me {n}",
    "Hello! My name is {n}.", "Hi! I'm {n}.", "Hey there, I'm {n}!", "my name is {n}, remember it",
    "remember that my name is {n}", "please remember my name: {n}", "remember my name, it is {n}",
    "I go by {n}", "you may call me {n}", "so, my name is {n}", "My name is {n}, nice to meet you",
    "my name is {n} and I like tea", "I'm {n}, how are you?", "I am {n}, a student", "name: {n}",
    "i m {n}", "actually, my name is {n}", "no, my name is {n}", "I am {n} from Rome",
    "hi, {n} is my name", "{n} is my name", "{n} here", "hi, {n} here",
    "let me introduce myself: I am {n}", "they call me {n}", "FYI my name is {n}",
    "for the record, my name is {n}", "by the way, my name is {n}", "btw I'm {n}",
    "here is my name: {n}", "I will tell you my name: {n}", "note my name: {n}",
    "you should know me as {n}", "about me: my name is {n}", "I'm called {n}",
    "good evening, I'm {n}", "good day, my name is {n}", "my name: {n}", "I have a name: {n}",
    "let me say who I am: {n}", "I am {n}, remember that", "the name I go by is {n}",
    "greetings, {n} here", "hello there, it's {n}", "you're talking to {n}",
    "my name is {n}, what's yours?", "hi there, I'm {n}, who are you?", "I want you to call me {n}",
)  # fmt: skip
NAME_GIVEN_ANSWER = "Nice to meet you, {n}."

NAME_ASKED: tuple[str, ...] = (
    "what is my name", "what's my name", "whats my name", "do you know my name",
    "do you remember my name", "who am I", "tell me my name", "can you tell me my name",
    "say my name", "my name", "what was my name", "do you remember who I am",
    "what did I say my name was", "and my name", "what is my name again", "remember my name",
    "what am I called", "what's my name again", "do you still know my name", "do you know who I am",
    "how am I called", "could you tell me my name", "so what is my name", "please tell me my name",
    "and what is my name", "what do you call me", "can you remember my name",
    "what name did I give you", "what name did I tell you", "which name did I give you",
    "what my name", "repeat my name", "now what is my name", "hey, what's my name", "wats my name",
    "my name is", "what is the name I gave you", "tell me who I am", "can you say my name",
    "did you forget my name", "have you forgotten my name", "have I told you my name",
    "did I tell you my name", "guess my name", "please say my name", "what do people call me",
    "ok, and what is my name", "quiz: what is my name", "do you recall my name",
    "can you recall my name", "what should you call me", "say who I am",
)  # fmt: skip
# These two make a question together.
NAME_LEADS: tuple[str, ...] = (
    "tell me", "can you say", "do you know", "could you repeat", "remind me", "say",
    "please tell me", "do you remember", "I forgot", "please repeat", "do you still have",
    "can you still tell me", "you know", "let me hear", "could you say", "please say",
)  # fmt: skip
NAME_CORES: tuple[str, ...] = (
    "what I am called", "what I'm called", "the name I told you", "what name I gave", "my name",
    "my first name", "what to call me", "who you are talking to", "how I am called",
    "what people call me", "the name I use", "which name is mine", "the name I mentioned",
    "the name I go by", "what name is mine", "who I am", "the name I said", "what name I have",
)  # fmt: skip
NAME_KNOWN_ANSWER = "Your name is {n}."
NAME_UNKNOWN_ANSWER = "You have not told me your name."

VOCATIVES: tuple[str, ...] = (
    "friend", "robot", "assistant", "my friend", "buddy", "dear", "mate", "computer", "machine",
    "model", "dude", "sir", "pal", "you", "there", "again", "my dear", "everyone", "man",
)  # fmt: skip
THANK: tuple[str, ...] = (
    "thanks for", "thank you for", "thx for", "many thanks for", "thanks a lot for", "cheers for",
    "thank you so much for", "I thank you for",
)  # fmt: skip
THANKED_FOR: tuple[str, ...] = (
    "that", "this", "telling me", "the info", "your time", "everything", "the help", "helping",
    "answering", "all", "your quick reply", "the information", "explaining", "being here",
    "all the answers", "the reply", "your patience", "that one",
)  # fmt: skip

PARTING: tuple[str, ...] = (
    "bye", "goodbye", "good night", "goodnight", "see you", "see ya", "so long", "farewell",
    "take care", "I'm off", "I am leaving", "I have to leave", "until", "have a good", "enjoy your",
)  # fmt: skip
PARTING_TAILS: tuple[str, ...] = (
    "all", "for now", "then", "my friend", "friends", "next time", "again soon", "on Monday",
    "now", "and thanks", "dear", "folks", "evening", "weekend", "night", "tomorrow", "soon",
)  # fmt: skip
STATE: tuple[str, ...] = (
    "how do you feel", "how are you", "how are you feeling", "how are you doing", "how is life",
    "how's life", "are you fine", "are you doing well", "how do things go", "how's everything",
    "how is everything going", "how does it go", "how's your day going", "you ok",
)  # fmt: skip
STATE_TAILS: tuple[str, ...] = (
    "now", "right now", "this morning", "these days", "tonight", "this evening", "at the moment",
    "on this fine day", "my friend", "buddy", "over there", "lately", "this afternoon",
)  # fmt: skip

TALK: dict[str, tuple[tuple[str, ...], str]] = {
    "hello": (GREETINGS, GREETING_ANSWER),
    "how_are_you": (HOW_ARE_YOU, HOW_ARE_YOU_ANSWER),
    "thanks": (THANKS, THANKS_ANSWER),
    "bye": (GOODBYES, GOODBYE_ANSWER),
    "who": (WHO, WHO_ANSWER),
    "abilities": (ABILITIES, ABILITIES_ANSWER),
}
