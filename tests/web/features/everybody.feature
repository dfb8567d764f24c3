Feature: Everybody
  With a keyboard only, on a phone, in the dark, with a screen reader, without a network.

  Scenario: Keyboard only
    Given the page is open with the echo model
    When I say "Hands off the mouse"
    Then Tab reaches all there is to press, choose and write
    And I always see where the focus is
    When I write "Typed by hand" and press Enter
    Then the conversation reads "Typed by hand" and then "Typed by hand"
    When I press the keys Alt+N
    And I go to the characters and press the arrow up
    Then Lexie greets me

  Scenario: Escape stops
    Given the page is open with a model that counts slowly, on a server of its own
    When I say "Count until I press Escape"
    And the answer has reached "three"
    And I press Escape
    Then nothing runs on the server any more

  Scenario: Escape stops what has only just begun
    Given the page is open with a model that counts slowly, on a server of its own
    When I say "Count, or rather do not" and press Escape when the answer begins
    Then nothing runs on the server any more
    And the message box is empty and ready

  Scenario: A phone
    Given a phone
    And the page is open with the echo model
    Then the page does not scroll sideways
    And the message box is in view
    When I say "From the tram"
    Then the conversation reads "From the tram" and then "From the tram"
    And the message box is in view
    When I choose Lexie
    Then Lexie greets me
    And the page does not scroll sideways

  Scenario Outline: <scheme>
    Given I like my screens <scheme>
    And the page is open with the echo model
    When I say "Can you read this?"
    Then the page is <scheme>
    And everything that is written can be read against what is behind it

    Examples:
      | scheme |
      | light  |
      | dark   |

  Scenario: With a screen reader
    Given the page is open with the echo model
    When I say "Read me aloud"
    Then every button, box, slider and image has a name
    And new words are announced
    And the page has a title, a language and one main heading

  Scenario: Without a network
    Given the page is open with the echo model
    When I say "Is anybody out there?"
    Then the conversation reads "anybody out there" and then "anybody out there"
    And nobody outside this machine was asked for anything

  Scenario: The side bar is folded away
    Given the page is open with the echo model
    When I press "Close the side bar"
    Then the side bar is gone, and the focus is on "Open the side bar"
    When the page is loaded again
    Then the side bar is gone
    When I press "Open the side bar"
    Then the side bar is there, and the focus is on "Close the side bar"
