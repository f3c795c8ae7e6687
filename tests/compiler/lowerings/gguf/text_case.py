"""Real text of many kinds, to be tokenized by two: the first article of human rights in many scripts, code from the
standard library, and lines made of what tokenizers stumble over."""

import argparse
import heapq
import inspect
import textwrap

RIGHTS = (
    "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience.",
    "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison.",
    "Alle Menschen sind frei und gleich an Würde und Rechten geboren; sie sollen einander brüderlich begegnen.",
    "Все люди рождаются свободными и равными в своем достоинстве и правах.",
    "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
    "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心。",
    "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
    "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "يولد جميع الناس أحراراً متساوين في الكرامة والحقوق.",
    "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם.",
    "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
    "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền.",
    "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar.",
)
STUMBLES = (
    "It's I'm you're WE'VE they'LL don't he'd 'tis rock 'n' roll's",
    "0 1 12 123 1234 12345 3.14159 1,000,000 2024-11-22 10:30 0x1F 1e-9 v2.0.1 ½ ²",
    "a  b   c    d     e\tf\t\tg\n\nh\n\n\n  i\r\nj\r\n\r\nk \n l  \n\n  ",
    "😀 👍🏽 👩‍👩‍👧‍👦 🇪🇺 ☕️ ¯\\_(ツ)_/¯ → ∑∫√ €5 £6 © ™",
    "camelCase PascalCase snake_case SCREAMING_CASE kebab-case HTTPServer2 iPhone",
    "if (x[i] != y->z) { return !(a && b) || c ? d : e; } // done!!! ...???",
    "https://example.org/path?query=1&x=%20#top user.name+tag@mail.example.com",
    '{"name": "x", "list": [1, 2, {"deep": null}], "text": "a\\nb"}',
    " leading and trailing ",
    "",
    "x",
    " ",
    "\n",
)
CODE = tuple(inspect.getsource(module)[:6000] for module in (argparse, heapq, textwrap))
LATIN = (*RIGHTS[:3], *STUMBLES[:2], *STUMBLES[4:], *CODE)
TEXTS = (*RIGHTS, *STUMBLES, *CODE, "\n".join((*RIGHTS, *STUMBLES)))
