# ruff: noqa: SIM905 (word lists read best as text)
"""Everyday words, of which system prompts and questions out of reach are put together."""

from __future__ import annotations

NOUNS: tuple[str, ...] = tuple(
    """
    airplane album algorithm animal ant apple army art artist atom baby baker ball banana band
    bank battery beach bear bed bee beer bicycle bird black-hole blood boat body bone book bottle
    boy brain bread bridge brother building bus butterfly button cake calculator camera camp car
    card carpet castle cat cell chair cheese chemist chess chicken child chocolate church circle
    city class clock cloud coat code coffee coin color comet company computer concert cook copper
    country cousin cow crime cup dance database daughter day death desk diamond dictionary diet
    dinner dinosaur disease doctor dog dollar door dragon dream dress drink driver drum duck ear
    earth earthquake economy egg electron elephant email empire energy engine engineer evening
    exam eye face factory family farm farmer father film fire fish flag flight flower food
    football forest fork friend frog fruit function furniture galaxy game garden gas ghost girl
    glass gold gravity guitar hair hammer hand hat heart helicopter history hobby holiday home
    honey horse hospital hotel house husband ice idea insect internet iron island jacket job joke
    journey juice keyboard king kitchen knife lake language laptop law lawyer leaf lemon lesson
    letter library life light lion lock love lunch machine magazine magnet map market marriage
    meal meat medicine memory metal milk mind mirror money monkey month moon morning mother
    mountain mouse movie museum music nation neighbour network newspaper night noise nose novel
    number nurse ocean office oil onion orange orchestra oven oxygen painter painting paper parent
    park party password pen pencil people pepper perfume person phone photo physics piano picture
    pig pilot pizza planet plant plate poem poet police pope potato prison prize problem professor
    program proton pump python quantum queen question rabbit radio railway rain rainbow recipe
    religion restaurant rice ring river road robot rock rocket roof room root rose salad salt
    sandwich satellite school science scientist sea season secret server shadow shark sheep ship
    shirt shoe shop sister skin sky sleep snake snow soap soccer sock soldier song soup space
    spider spoon spring star station stomach stone storm story street student sugar summer sun
    surgeon table tax tea teacher team telephone temperature temple tennis theatre theory tiger
    time tomato tooth tourist tower town toy train travel treasure tree triangle truck uncle
    university vaccine valley vampire vegetable victory video village violin virus volcano wall
    war watch water weather website wedding week whale wheel wife wind window wine winter wizard
    wolf woman wood word work world writer year zebra zoo
    """.replace("-", " ").split()
)

VERBS: tuple[str, ...] = tuple(
    """
    answer arrange ask bake become begin believe bite break bring build burn buy call carry catch
    change choose clean climb close code collect cook copy count cross cry cut dance delete
    describe design destroy die discover divide draw dream drink drive eat escape explain fall
    feed feel fight find fix fly forget freeze get give grow hate hear help hide hit hold hurt
    improve invent invest jump keep kill kiss know laugh lead learn leave lift like listen live
    look lose love make marry meet melt move open paint pay plan plant play pray print produce
    program protect pull push read remember remove repair rest ride ring rise run save say search
    see sell send sing sit sleep smell solve speak spell spend stand start steal stop study swim
    talk teach tell think throw touch train translate travel understand use visit wait walk want
    wash watch wear win work write
    """.split()
)

ADJECTIVES: tuple[str, ...] = tuple(
    """
    ancient angry bad beautiful best big black blue boring brave brief bright broken calm careful
    cheap clean clear clever cold concise cool correct creative cruel curious dangerous dark deep
    delicious different difficult dirty dry early easy empty expert expensive famous fast fat
    fast-paced fine formal free fresh friendly full funny gentle good great green happy hard
    healthy heavy helpful high honest hot huge hungry important kind large last late lazy light
    little lonely long loud lucky modern new nice noisy old open patient playful poetic polite
    poor popular precise proud quick quiet rare red rich right round sad safe serious sharp short
    shy sick silly simple slow small smart soft sour special strange strict strong sweet tall
    terse thick thin tired tiny typical ugly useful warm weak wet white wide wild wise witty
    wonderful wrong yellow young
    """.split()
)

PEOPLE: tuple[str, ...] = (
    "Albert Einstein", "Napoleon", "Cleopatra", "Shakespeare", "Mozart", "Beethoven",
    "Isaac Newton", "Marie Curie", "Abraham Lincoln", "Julius Caesar", "Gandhi", "Nelson Mandela",
    "Elvis", "Michael Jackson", "Madonna", "Taylor Swift", "Messi", "Ronaldo", "Elon Musk",
    "Bill Gates", "Steve Jobs", "Barack Obama", "Trump", "Biden", "Putin", "Queen Elizabeth",
    "King Charles", "Leonardo da Vinci", "Picasso", "Van Gogh", "Charles Darwin", "Galileo",
    "Plato", "Aristotle", "Socrates", "Columbus", "Marco Polo", "Neil Armstrong", "Harry Potter",
    "Sherlock Holmes", "Batman", "Superman", "Spider-Man", "Darth Vader", "Gandalf", "Frodo",
    "Mickey Mouse", "Santa Claus", "Jesus", "Buddha", "Muhammad", "Moses", "Churchill", "Hitler",
    "Stalin", "Mao", "Tolstoy", "Goethe", "Kafka", "Dante", "Homer", "Bach", "Chopin", "Freud",
    "Marx", "Tesla", "Edison", "Turing", "Alan Turing", "Ada Lovelace", "Linus Torvalds",
    "Guido van Rossum", "Beyonce", "Rihanna", "Adele", "Tom Hanks", "Brad Pitt", "the president",
    "the prime minister", "the pope", "the king", "the queen", "my boss", "my neighbour", "God",
)  # fmt: skip

THINGS: tuple[str, ...] = (
    "the Eiffel Tower", "the Great Wall", "the Colosseum", "the Titanic", "the Mona Lisa",
    "the Bible", "the Nile", "the Amazon", "Mount Everest", "the Sahara", "the Moon", "Mars",
    "Jupiter", "Saturn", "Venus", "the Sun", "the Milky Way", "World War I", "World War II",
    "the Cold War", "the French Revolution", "the Roman Empire", "the Renaissance", "the Internet",
    "Python", "JavaScript", "Linux", "Windows", "Docker", "Kubernetes", "Git", "SQL", "HTML",
    "Java", "C++", "Rust", "machine learning", "artificial intelligence", "quantum physics",
    "photosynthesis", "evolution", "gravity", "relativity", "DNA", "the heart", "the brain",
    "the liver", "diabetes", "cancer", "aspirin", "vitamin C", "caffeine", "bitcoin", "inflation",
    "the stock market", "capitalism", "democracy", "communism", "Buddhism", "Islam", "Christianity",
    "football", "basketball", "cricket", "chess", "the Olympics", "the World Cup", "jazz", "opera",
    "Netflix", "YouTube", "Google", "Apple", "Microsoft", "Amazon", "Facebook", "Tesla", "Bitcoin",
    "climate change", "global warming", "black holes", "the big bang", "pi", "the Beatles",
    "Hamlet", "Star Wars", "The Lord of the Rings", "Game of Thrones", "Frozen", "Minecraft",
    "Fortnite", "Pokemon", "pizza", "sushi", "pasta", "chocolate cake", "bread", "wine",
    "green tea", "espresso", "the atom", "water", "capital gains", "capital letters",
    "capital punishment", "capital markets", "working capital", "venture capital",
)  # fmt: skip
