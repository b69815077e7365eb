#include "glob.h"

/* The ends of a pattern are anchored and the runs between its stars are each found at their leftmost place, which is
   never worse than a later one; so nothing is ever tried twice, and the time is at most pattern times text. */

static int continues(char c)
{
    return ((unsigned char)c & 0xC0) == 0x80;
}

/* Match `pat` at the start of `text`; return what is left of the text, or NULL. */
static const char *match_here(const char *pat, const char *pat_end, const char *text, const char *end)
{
    for (; pat < pat_end; pat++) {
        if (text == end)
            return NULL;
        if (*pat == '?') {
            do
                text++;
            while (text < end && continues(*text));
        } else if (*pat != *text++) {
            return NULL;
        }
    }
    return text;
}

int cra_glob(const char *pat, size_t np, const char *text, size_t nt)
{
    const char *pat_end = pat + np, *end = text + nt, *star = pat, *rest;
    while (star < pat_end && *star != '*')
        star++;
    text = match_here(pat, star, text, end);
    if (!text)
        return 0;
    if (star == pat_end)
        return text == end;

    /* What follows the last star must end the text; a `?` there takes one code point from the back. */
    while (pat_end[-1] != '*') {
        if (text == end)
            return 0;
        pat_end--;
        if (*pat_end == '?') {
            do
                end--;
            while (text < end && continues(*end));
        } else if (*pat_end != *--end) {
            return 0;
        }
    }

    for (pat = star;;) {
        while (pat < pat_end && *pat == '*')
            pat++;
        if (pat == pat_end)
            return 1;
        for (star = pat; *star != '*';)
            star++;
        while (!(rest = match_here(pat, star, text, end))) {
            if (text == end)
                return 0;
            do
                text++;
            while (text < end && (*pat == '?' ? continues(*text) : *text != *pat));
        }
        text = rest;
        pat = star;
    }
}
