Feature: The libraries' view
  Documents are dropped, read, found with their place, and taken out.

  Scenario: Documents are dropped and found
    Given the page is open with the echo model, in a house of its own
    When I open the view "Libraries"
    Then I see "No library yet"
    When I make the library "kitchen"
    And I drop the documents "bread.md", "poem.txt"
    Then the library lists "bread.md" and "poem.txt"
    When I search the library for "how long does the dough rest"
    Then I see "bread.md, line 3"
    And I see "Let the dough rest overnight in the fridge."

  Scenario: What cannot be read is said, and the others are read
    Given the page is open with the echo model, in a house of its own
    When I open the view "Libraries"
    And I make the library "kitchen"
    And I drop the documents "program.exe", "bread.md"
    Then I see "program.exe: it is not a text"
    And the library lists "bread.md"

  Scenario: A document is taken out, and the library deleted
    Given the page is open with the echo model, in a house of its own
    When I open the view "Libraries"
    And I make the library "kitchen"
    And I drop the documents "bread.md", "poem.txt"
    And I take out "poem.txt"
    Then the library does not list "poem.txt"
    And the library lists "bread.md"
    When I delete the library "kitchen"
    Then I see "No library yet"
    And no file in the house holds "dough rest overnight"

  Scenario: A chat has a library of its own, and a reply says what it went by
    Given the page is open with the echo model, in a house of its own
    When I open the view "Libraries"
    And I make the library "kitchen"
    And I drop the documents "bread.md", "poem.txt"
    And I begin a new chat with the library "kitchen"
    And I say "How long does the dough rest?"
    Then the reply names "bread.md, line 3" as its source

  Scenario Outline: Everybody can use the libraries' view: <screen>, <scheme>
    Given <screen>
    And I like my screens <scheme>
    And the page is open with the echo model, in a house of its own
    When I open the view "Libraries"
    And I make the library "kitchen"
    And I drop the documents "bread.md", "poem.txt"
    And I search the library for "dough"
    Then nothing in the way of anybody is found
    And a picture is taken as "libraries-<name>"

    Examples:
      | screen    | scheme | name          |
      | a desktop | light  | desktop-light |
      | a phone of 320 pixels | dark   | phone-dark |
