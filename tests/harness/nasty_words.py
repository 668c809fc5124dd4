"""Words that a careless script would run, split, expand or take for an option."""

from hypothesis import strategies as st

TEXT = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1
)
NASTY = [
    "a b",
    "$(touch injected)",
    "`touch injected`",
    "'; touch injected; '",
    '"; touch injected; "',
    "x\n#SBATCH --wrap=hostname\ntouch injected\n",
    "a\\'b\r\t\x7f\x01f",
    "-x",
    "~",
    "*",
    "é$HOME",
]
