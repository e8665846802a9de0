"""The pages, in the order of the menu: a page is one file and one entry here."""

from . import lines, orders, paths, picard

LESSONS = (paths.LESSON, orders.LESSON, picard.LESSON, lines.LESSON)
