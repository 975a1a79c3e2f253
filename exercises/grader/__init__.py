"""Starts a student's server, talks WebSocket to it, and judges what it says.

The parts, from the ground up: `timeline` records who said what and shows it; `outcomes`
names the ways in which a check can fail; `serving` starts and ends servers; `clients`
talks to them, politely or not; `plugin` turns pytest functions into graded checks;
`course` knows the exercises; `commands` is the command line, and `teaching` the part of it
that is for teachers.
"""
