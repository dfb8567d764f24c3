Feature: Characters
  Everybody in the house is there to be met, each with a conversation of their own.

  Scenario: All of them are there, with a portrait
    Given the page is open with the echo model
    Then I can choose between Gary, George, Lexie and Stacy
    And each character has a portrait

  Scenario: Who they are is told in two lines, and in full to who points at it
    Given the page is open with the echo model
    Then below each name two lines at most tell who that is, and the whole when one points at it

  Scenario: Meeting another one
    Given the page is open with the echo model
    When I say "Good evening, Stacy"
    And I choose George
    Then George greets me
    And the conversation does not show "Good evening, Stacy"
    When I say "Good evening, George"
    Then the conversation reads "Good evening, George" and then "Good evening, George"
    And the list of chats has "Good evening, Stacy" and "Good evening, George"

  Scenario: Who passes by somebody on the way does not meet them
    Given the page is open with the echo model
    When the server takes a second for everything
    And I go to the characters and press the arrow up twice
    Then George greets me
    And George is chosen

  Scenario: A character of one's own, with umlauts
    Given the page is open with a character called "Jürgen Größe"
    Then I can choose Jürgen Größe
    When I choose Jürgen Größe
    Then I see "Grüß Gott, schöne Grüße aus Köln!"
    When I say "Wie heißt du? 你好 🙂"
    Then the conversation reads "Wie heißt du? 你好 🙂" and then "Wie heißt du? 你好 🙂"
