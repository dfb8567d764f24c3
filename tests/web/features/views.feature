@looks
Feature: Views
  Every view is looked at: by axe-core in both themes, on narrow screens, enlarged, and as pictures in build/screenshots.

  Scenario Outline: Nothing is in anybody's way: <scheme>
    Given I like my screens <scheme>
    And the page is open with a talkative model
    Then no view has a serious fault of access
    And a picture of each view is taken, in <scheme>

    Examples:
      | scheme |
      | light  |
      | dark   |

  Scenario Outline: Nothing is cut: <screen>
    Given <screen>
    And the page is open with a talkative model
    Then no view scrolls sideways, and its buttons are in reach
    And a picture of each view is taken, on <screen>

    Examples:
      | screen                    |
      | a screen of 320 pixels    |
      | a page at 200 % zoom      |

  Scenario: A whole chat and a change of settings by keyboard alone
    Given the page is open with the echo model
    When I type "Hands off" and send it with the keyboard
    Then the conversation reads "Hands off" and then "Hands off"
    When I press the keys Alt+S
    And I move to "Temperature" with Tab and type "0.8"
    And I press the keys Escape
    And I press the keys Alt+N
    And I type "In a new chat" and send it with the keyboard
    Then the conversation reads "In a new chat" and then "In a new chat"
    When I move to the chat "Hands off" with Tab and the arrow keys and press Enter
    Then the conversation shows "Hands off"
    And the chat has temperature 0.8
