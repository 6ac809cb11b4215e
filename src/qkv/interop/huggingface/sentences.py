"""Sentences to compare two models on where there is no better text: several languages and scripts, digits, marks, capitals."""

from __future__ import annotations

SENTENCES = (
    "A small dog runs across the wet grass.",
    "She bought 3 books for €12.50 (a bargain!), didn't she?",
    'The quick-witted OWL said: "it\'s only 7:45 a.m."',
    "Zwei Männer überqueren die Straße, während es regnet.",
    "Où est passée la clé de l'armoire ?",
    "El niño pequeño compró una piña mañana por la tarde.",
    "Il gatto dorme già da un'ora sul divano.",
    "Пожилая женщина читает газету на скамейке.",
    "Μια γυναίκα διαβάζει ένα βιβλίο.",
    "昨日、友達と一緒に映画を見ました。",
    "两个孩子在公园里踢足球。",
    "امرأة تقرأ كتابا في الحديقة.",
)
