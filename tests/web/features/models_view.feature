Feature: The models' view
  What is loaded and on what device, what else is there, what it takes, how fast it is.

  Scenario: The loaded model and its device
    Given the page is open with the echo model, in a house of its own
    When I open the view "Models"
    Then I see the device as the server attests it

  Scenario: The meter counts replies
    Given the page is open with the echo model, in a house of its own
    When I say "Count this"
    And the reply is whole
    And I open the view "Models"
    Then I see "1 replies"
    And the speed is a number
    And the share of prompts that was cached is the server's

  Scenario: Models of a folder are planned for without being loaded
    Given the page is open with the echo model and a folder of models
    When I open the view "Models"
    Then I see "small.gguf"
    And I see "broken.gguf"
    When I plan for the model "small.gguf"
    Then the memory picture has "small"
    When I plan for 32768 tokens
    Then the picture's KV caches grow

  Scenario: Another model is loaded beside the first, pinned, and unloaded
    Given the page is open with a server of several models
    When I open the view "Models"
    And I load the model "small.gguf"
    Then the model "small.gguf" can be unloaded
    And whoever wants to chat can choose "small"
    When I open the view "Models"
    And I pin the model "small.gguf"
    Then the model "small.gguf" cannot be unloaded
    When I unpin the model "small.gguf"
    And I unload the model "small.gguf"
    Then the model "small.gguf" can be loaded

  Scenario: A model for which there is no room
    Given the page is open with a server of several models and little memory
    When I open the view "Models"
    And I load the model "small.gguf"
    Then I am told why "small.gguf" does not fit

  Scenario Outline: Everybody can use the models' view: <screen>, <scheme>
    Given <screen>
    And I like my screens <scheme>
    And the page is open with the echo model and a folder of models
    When I open the view "Models"
    And I plan for the model "small.gguf"
    Then the memory picture has "small"
    And nothing in the way of anybody is found
    And a picture is taken as "models-<name>"

    Examples:
      | screen    | scheme | name          |
      | a desktop | light  | desktop-light |
      | a phone of 320 pixels | dark   | phone-dark |

  Scenario: A persona speaks through another model of the server
    Given the page is open with a server of several models
    When I say "Before"
    And the reply is whole
    And I switch the model to "small"
    Then the chat is with "stacy@small"
    And I am still with "Stacy"
    And the picture of "Stacy" is the persona's
    When I say "Through another one"
    And the reply is whole
    Then the server has "small.gguf" in memory
    When I take away the persona in the settings
    Then the chat is with "small"
    When I switch the model to "first"
    Then the chat is with "first"

  Scenario: A chat begins with a persona and another model
    Given the page is open with a server of several models
    When I switch the model to "small"
    And I say "Hello"
    And the reply is whole
    Then the chat is with "stacy@small"
