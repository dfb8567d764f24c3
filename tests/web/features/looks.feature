@looks
Feature: Looks
  Pictures for people to look at: build/screenshots.

  Scenario Outline: <name>
    Given I like my screens <scheme>
    And a <viewport>
    And the page is open with a talkative model
    When I have a conversation with Stacy
    Then a picture is taken as "<name>"

    Examples:
      | name          | scheme | viewport |
      | desktop-light | light  | desktop  |
      | desktop-dark  | dark   | desktop  |
      | phone-light   | light  | phone    |
      | phone-dark    | dark   | phone    |
