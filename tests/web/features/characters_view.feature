Feature: The characters' view
  Characters are found, made, changed, imported and taken along, and talk at once.

  Scenario: A card that is dropped talks at once
    Given the page is open with the echo model, in a house of its own
    When I open the view "Characters"
    And I drop the card of Ada
    Then the gallery shows "Ada"
    And the gallery shows "Gary"
    When I use the button "Chat with Ada"
    Then the conversation shows "Good day, User."
    When I say "Do you compute?"
    Then the conversation reads "Do you compute?" and then "Do you compute?"

  Scenario: The gallery is searched
    Given the page is open with the echo model, in a house of its own
    When I open the view "Characters"
    And I drop the card of Ada
    And I search the gallery for "maths"
    Then the gallery shows nothing but "Ada"
    When I search the gallery for "no such one"
    Then I see "Nobody fits."

  Scenario: A card that is there already is replaced or gets another name
    Given the page is open with the echo model, in a house of its own
    When I open the view "Characters"
    And I drop the card of Ada
    And I drop the card of Ada again and name it "Second Ada"
    Then the server has the character "second-ada"
    When I drop the card of Ada again and name it ""
    Then the server has the character "ada"

  Scenario: A character is made with the keyboard alone
    Given the page is open with the echo model, in a house of its own
    When I open the view "Characters"
    And I make "Eve Smith" with the keyboard, who is "A chess player." and greets with "Your move."
    Then the server has the character "eve-smith"
    And "Eve Smith" has the description "A chess player."
    When I open the view "Characters"
    And I use the button "Chat with Eve Smith"
    Then the conversation shows "Your move."

  Scenario: A shipped persona is copied, and the copy changed
    Given the page is open with the echo model, in a house of its own
    When I look at the character "Gary"
    Then nothing of it can be changed
    When I use the button "Duplicate it to edit"
    And I write "Nice to see you!" as the greeting number 1 and save
    Then the server has the character "gary-2"
    And the character "gary-2" has 2 greetings

  Scenario: A lorebook is tried before it is saved
    Given the page is open with the echo model, in a house of its own
    When I open the view "Characters"
    And I drop the card of Ada
    And I look at the character "Ada"
    And I add a lorebook entry with the keys "engine, loom" and the text "It weighs four tons."
    And I test the lorebook with "How heavy is the engine?"
    Then I see "One entry fires"
    And I see "It weighs four tons."
    When I test the lorebook with "How heavy is the moon?"
    Then I see "0 entries fire"
    When I use the button "Save the lorebook"
    Then the lorebook of "ada" has the keys "engine" and "loom"

  Scenario: A character is exported and deleted
    Given the page is open with the echo model, in a house of its own
    When I open the view "Characters"
    And I drop the card of Ada
    And I export "Ada" as JSON
    Then I get Ada's card byte for byte
    When I delete the character "Ada"
    Then the gallery does not show "Ada"

  Scenario: What is no card is refused in one sentence
    Given the page is open with the echo model, in a house of its own
    When I open the view "Characters"
    And I drop a picture without a card
    Then I see "is a picture without a character in it"

  Scenario: A hostile card runs nothing
    Given the page is open with the echo model, in a house of its own
    When I open the view "Characters"
    And I drop a card that is full of scripts
    And I look at the character "Mallory"
    Then the words ran nothing and fetched nothing

  Scenario Outline: Everybody can use the characters' view: <screen>, <scheme>
    Given <screen>
    And I like my screens <scheme>
    And the page is open with the echo model, in a house of its own
    When I open the view "Characters"
    And I drop the card of Ada
    Then nothing in the way of anybody is found
    And a picture is taken as "characters-<name>"
    When I look at the character "Ada"
    And I open every part of the view
    Then nothing in the way of anybody is found
    And a picture is taken as "character-<name>"

    Examples:
      | screen    | scheme | name          |
      | a desktop | light  | desktop-light |
      | a desktop | dark   | desktop-dark  |
      | a phone of 320 pixels | dark   | phone-dark |
